#include "engine/retrieval/retrieval_heads.h"

#include <algorithm>
#include <string>

#include "store/base/sha256.h"

namespace corpusd {
namespace {

constexpr HeadShape kSmolLm2{.layers = 30, .q_heads = 9, .kv_heads = 3, .head_dim = 64};
constexpr RetrievalHead kSmolLm2Heads[] = {{18, 7}, {18, 6}, {17, 3}, {17, 4}, {17, 5}};

Digest DigestOf(const HeadShape& shape, std::span<const RetrievalHead> heads) {
  std::string text = "retrieval-heads-1;" + std::to_string(shape.layers) + "," +
                     std::to_string(shape.q_heads) + "," + std::to_string(shape.kv_heads) + "," +
                     std::to_string(shape.head_dim) + ";";
  for (const RetrievalHead& head : heads) {
    text += std::to_string(head.layer) + "." + std::to_string(head.q_head) + ";";
  }
  Sha256 hash;
  hash.Update(text);
  return Digest{hash.Finish()};
}

}  // namespace

HeadShape HeadShapeOf(const ModelConfig& config) {
  return {config.layers, config.q_heads, config.kv_heads, config.head_dim};
}

RetrievalHeads::RetrievalHeads(const HeadShape& shape, std::vector<RetrievalHead> heads)
    : shape_(shape), heads_(std::move(heads)), digest_(DigestOf(shape_, heads_)) {
  const uint32_t group = shape_.q_heads / shape_.kv_heads;
  const auto source_of = [&](const RetrievalHead& head) {
    return KeySource{head.layer, head.q_head / group};
  };
  for (const RetrievalHead& head : heads_) sources_.push_back(source_of(head));
  std::sort(sources_.begin(), sources_.end());
  sources_.erase(std::unique(sources_.begin(), sources_.end()), sources_.end());
  heads_of_.resize(sources_.size());
  for (uint32_t i = 0; i < heads_.size(); ++i) {
    const auto found = std::lower_bound(sources_.begin(), sources_.end(), source_of(heads_[i]));
    heads_of_[static_cast<size_t>(found - sources_.begin())].push_back(i);
  }
}

Result<RetrievalHeads> RetrievalHeads::Create(const HeadShape& shape,
                                              std::vector<RetrievalHead> heads) {
  if (heads.empty()) return InvalidArgumentError("there is no retrieval head");
  std::vector<RetrievalHead> sorted = heads;
  std::sort(sorted.begin(), sorted.end());
  for (size_t i = 0; i < sorted.size(); ++i) {
    const std::string name =
        std::to_string(sorted[i].layer) + "." + std::to_string(sorted[i].q_head);
    if (sorted[i].layer >= shape.layers || sorted[i].q_head >= shape.q_heads) {
      return InvalidArgumentError("the model has no query head " + name);
    }
    if (i > 0 && sorted[i] == sorted[i - 1]) {
      return InvalidArgumentError("retrieval head " + name + " is listed twice");
    }
  }
  return RetrievalHeads(shape, std::move(heads));
}

RetrievalHeads RetrievalHeads::BuiltIn(const HeadShape& shape) {
  if (shape == kSmolLm2) {
    return RetrievalHeads(shape, {std::begin(kSmolLm2Heads), std::end(kSmolLm2Heads)});
  }
  std::vector<RetrievalHead> heads;
  const uint32_t layer = std::min(shape.layers - 1, shape.layers * 2 / 3);
  for (uint32_t head = 0; head < shape.q_heads; ++head) heads.push_back({layer, head});
  return RetrievalHeads(shape, std::move(heads));
}

}  // namespace corpusd
