#include "engine/model/weight_sizes.h"

#include <algorithm>

namespace corpusd {
namespace {

class Parts {
 public:
  Parts(WeightType stored, WeightMode mode) : stored_(stored), mode_(mode) {}

  // `copies` matrices, of which a token meets `used`.
  void Add(const std::string& name, WeightRole role, uint64_t rows, uint32_t cols,
           uint64_t copies = 1, uint64_t used = 1) {
    const WeightType kept = KeptType(mode_, role, stored_, cols);
    WeightPart& part = Of(name);
    part.parameters += rows * cols * copies;
    part.used += rows * cols * used;
    part.bytes += WeightRowBytes(kept, cols) * rows * copies;
  }
  void AddFloats(uint64_t count) {
    WeightPart& part = Of("gains and biases");
    part.parameters += count;
    part.used += count;
    part.bytes += count * sizeof(float);
  }
  std::vector<WeightPart> Take() { return std::move(parts_); }

 private:
  WeightPart& Of(const std::string& name) {
    const auto found = std::find_if(parts_.begin(), parts_.end(),
                                    [&](const WeightPart& part) { return part.name == name; });
    if (found != parts_.end()) return *found;
    parts_.push_back({name, 0, 0, 0});
    return parts_.back();
  }

  const WeightType stored_;
  const WeightMode mode_;
  std::vector<WeightPart> parts_;
};

void AddFeedForward(const std::string& name, uint32_t hidden, uint32_t inner, uint64_t copies,
                    uint64_t used, Parts* parts) {
  parts->Add(name, WeightRole::kProduct, 2 * uint64_t{inner}, hidden, copies, used);
  parts->Add(name, WeightRole::kProduct, hidden, inner, copies, used);
}

}  // namespace

std::vector<WeightPart> WeightSizes(const ModelConfig& c, bool tied, WeightType stored,
                                    WeightMode mode) {
  Parts parts(stored, mode);
  const uint32_t q_rows = c.q_heads * c.head_dim;
  const uint32_t qkv_rows = q_rows + 2 * c.kv_heads * c.head_dim;
  for (const LayerConfig& layer : c.layer_configs) {
    parts.Add("attention", WeightRole::kProduct, qkv_rows, c.hidden);
    parts.Add("attention", WeightRole::kProduct, c.hidden, q_rows);
    AddFeedForward(layer.experts ? "shared experts" : "feed forward", c.hidden, layer.feed_forward,
                   1, 1, &parts);
    if (layer.experts) {
      AddFeedForward("experts", c.hidden, c.expert_feed_forward, c.experts, c.experts_used, &parts);
      parts.Add("routers", WeightRole::kRouter, c.experts, c.hidden);
    }
    uint64_t floats = (c.branch_norms ? 4 : 2) * uint64_t{c.hidden};
    if (c.head_norm == HeadNorm::kGain) floats += 2 * uint64_t{c.head_dim};
    if (c.qkv_bias) floats += qkv_rows;
    if (c.output_bias) floats += c.hidden;
    parts.AddFloats(floats);
  }
  // A row of it is a token's only work with it.
  parts.Add("embedding", WeightRole::kTable, c.vocabulary, c.hidden, 1, 0);
  if (!tied) parts.Add("output", WeightRole::kTable, c.vocabulary, c.hidden);
  parts.AddFloats(c.hidden);
  return parts.Take();
}

}  // namespace corpusd
