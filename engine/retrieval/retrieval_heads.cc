#include "engine/retrieval/retrieval_heads.h"

#include <algorithm>
#include <charconv>

#include "store/base/sha256.h"

namespace corpusd {
namespace {

constexpr HeadShape kSmolLm2{.layers = 30, .q_heads = 9, .kv_heads = 3, .head_dim = 64};
// More of the ranking make it worse: 17.3, 17.4 and 17.5 come next.
constexpr RetrievalHead kSmolLm2Heads[] = {{18, 6}, {18, 7}};

constexpr std::string_view kVersion = "retrieval-heads-1;";

// Takes a number and the mark behind it from the front of a text.
bool TakeNumber(std::string_view* text, char mark, uint32_t* value) {
  const char* const end = text->data() + text->size();
  const auto [at, error] = std::from_chars(text->data(), end, *value);
  if (error != std::errc() || at == end || *at != mark) return false;
  text->remove_prefix(static_cast<size_t>(at - text->data()) + 1);
  return true;
}

}  // namespace

HeadShape HeadShapeOf(const ModelConfig& config) {
  return {config.layers, config.q_heads, config.kv_heads, config.head_dim};
}

RetrievalHeads::RetrievalHeads(const HeadShape& shape, std::vector<RetrievalHead> heads)
    : shape_(shape), heads_(std::move(heads)) {
  Sha256 hash;
  hash.Update(Text());
  digest_ = Digest{hash.Finish()};
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

Result<RetrievalHeads> RetrievalHeads::FromNames(const HeadShape& shape, std::string_view names) {
  std::vector<RetrievalHead> heads;
  std::string left = std::string(names) + ",";
  for (std::string_view text = left; !text.empty();) {
    RetrievalHead head;
    if (!TakeNumber(&text, '.', &head.layer) || !TakeNumber(&text, ',', &head.q_head)) {
      return InvalidArgumentError("'" + std::string(names) +
                                  "' names no retrieval heads: write 18.6,18.7");
    }
    heads.push_back(head);
  }
  return Create(shape, std::move(heads));
}

std::optional<RetrievalHeads> RetrievalHeads::BuiltIn(const HeadShape& shape) {
  if (shape != kSmolLm2) return std::nullopt;
  return RetrievalHeads(shape, {std::begin(kSmolLm2Heads), std::end(kSmolLm2Heads)});
}

std::string RetrievalHeads::Text() const {
  std::string text(kVersion);
  text += std::to_string(shape_.layers) + "," + std::to_string(shape_.q_heads) + "," +
          std::to_string(shape_.kv_heads) + "," + std::to_string(shape_.head_dim) + ";";
  for (const RetrievalHead& head : heads_) {
    text += std::to_string(head.layer) + "." + std::to_string(head.q_head) + ";";
  }
  return text;
}

Result<RetrievalHeads> RetrievalHeads::FromText(std::string_view text) {
  const Status damaged = CorruptionError("not a list of retrieval heads");
  if (!text.starts_with(kVersion)) return damaged;
  text.remove_prefix(kVersion.size());
  HeadShape shape;
  if (!TakeNumber(&text, ',', &shape.layers) || !TakeNumber(&text, ',', &shape.q_heads) ||
      !TakeNumber(&text, ',', &shape.kv_heads) || !TakeNumber(&text, ';', &shape.head_dim) ||
      shape.kv_heads == 0 || shape.q_heads % shape.kv_heads != 0) {
    return damaged;
  }
  std::vector<RetrievalHead> heads;
  while (!text.empty()) {
    RetrievalHead head;
    if (!TakeNumber(&text, '.', &head.layer) || !TakeNumber(&text, ';', &head.q_head)) {
      return damaged;
    }
    heads.push_back(head);
  }
  auto parsed = Create(shape, std::move(heads));
  if (!parsed.ok()) return CorruptionError(parsed.status().message());
  return parsed;
}

}  // namespace corpusd
