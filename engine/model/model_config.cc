#include "engine/model/model_config.h"

#include <algorithm>
#include <cstdio>

#include "kernels/kv_format.h"
#include "store/base/check.h"

namespace corpusd {
namespace {

constexpr uint64_t kRopeTableBytesMax = uint64_t{512} << 20;

std::string Real(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", value);
  return text;
}

// Nothing for layers such as every llama model has.
std::string CanonicalLayer(const LayerConfig& layer, uint32_t feed_forward) {
  std::string text;
  if (layer.span == AttentionSpan::kChunk) text += "c" + std::to_string(layer.span_tokens);
  if (layer.span == AttentionSpan::kWindow) text += "w" + std::to_string(layer.span_tokens);
  if (!layer.rope) text += "n";
  if (layer.local_rope) text += "l";
  if (layer.temperature) text += "t";
  if (layer.experts) text += "e";
  if (layer.feed_forward != feed_forward) text += "f" + std::to_string(layer.feed_forward);
  return text;
}

}  // namespace

Status ValidateModelConfig(const ModelConfig& c) {
  if (c.q_heads % c.kv_heads != 0) {
    return InvalidArgumentError(std::to_string(c.q_heads) + " query heads cannot share " +
                                std::to_string(c.kv_heads) + " KV heads evenly");
  }
  if (c.head_dim % 16 != 0) {
    return UnimplementedError("a head dimension of " + std::to_string(c.head_dim) +
                              " is not a multiple of 16");
  }
  if (c.experts_used > c.experts) {
    return InvalidArgumentError(std::to_string(c.experts_used) + " experts a token are more than " +
                                "the " + std::to_string(c.experts) + " there are");
  }
  CHECK(c.layer_configs.size() == c.layers) << c.layer_configs.size() << " of " << c.layers;
  // The table of rotations holds one float pair per position and pair of dimensions.
  if (uint64_t{c.RopePositions()} * c.rope.dimensions * sizeof(float) > kRopeTableBytesMax) {
    return UnimplementedError("a context of " + std::to_string(c.context_tokens) +
                              " tokens is beyond what this version serves: its rotation table "
                              "would take over 512 MiB");
  }
  if (c.local_rope.dimensions > 0) RETURN_IF_ERROR(ValidateRope(c.local_rope, c.head_dim));
  return ValidateRope(c.rope, c.head_dim);
}

std::shared_ptr<const LayerParts> LayerPartsOf(const ModelConfig& config) {
  LayerParts all;
  all.parts.push_back({.kind = "all"});
  for (const LayerConfig& layer : config.layer_configs) {
    LayerPart part{"all", layer.span == AttentionSpan::kWindow, layer.span_tokens, 0};
    if (layer.span == AttentionSpan::kAll) part.span_tokens = 0;
    if (layer.span != AttentionSpan::kAll) {
      part.kind = (part.window ? "w" : "c") + std::to_string(part.span_tokens);
    }
    auto known = std::find_if(all.parts.begin(), all.parts.end(),
                              [&](const LayerPart& p) { return p.kind == part.kind; });
    if (known == all.parts.end()) known = all.parts.insert(all.parts.end(), part);
    all.places.push_back({static_cast<uint32_t>(known - all.parts.begin()), known->layers++});
  }
  if (all.parts.size() == 1) return nullptr;
  return std::make_shared<const LayerParts>(std::move(all));
}

bool ModelConfig::IsPlain() const {
  for (const LayerConfig& layer : layer_configs) {
    if (!CanonicalLayer(layer, feed_forward).empty()) return false;
  }
  return head_norm == HeadNorm::kNone && !qkv_bias && !output_bias && experts == 0 && !gelu &&
         !branch_norms && embedding_scale == 1 && query_scalar == 0;
}

uint32_t ModelConfig::FeedForwardMax() const {
  uint32_t largest = std::max(feed_forward, expert_feed_forward);
  for (const LayerConfig& layer : layer_configs) largest = std::max(largest, layer.feed_forward);
  return largest;
}

uint32_t ModelConfig::RopePositions() const {
  uint64_t positions = 1;
  for (const LayerConfig& layer : layer_configs) {
    if (!layer.rope) continue;
    if (layer.span == AttentionSpan::kAll) return context_tokens;
    // A page that holds a visible token begins less than a block before the span; a device turns up
    // to so many neighbouring rows from one page.
    positions = std::max(positions, uint64_t{layer.span_tokens} + 2 * kBlockTokens);
  }
  return static_cast<uint32_t>(std::min<uint64_t>(positions, context_tokens));
}

std::string ModelConfig::Canonical() const {
  std::string text = "arch=" + architecture + ";layers=" + std::to_string(layers) +
                     ";hidden=" + std::to_string(hidden) + ";heads=" + std::to_string(q_heads) +
                     "/" + std::to_string(kv_heads) + ";dim=" + std::to_string(head_dim) +
                     ";ff=" + std::to_string(feed_forward) +
                     ";vocab=" + std::to_string(vocabulary) + ";eps=" + Real(norm_epsilon) +
                     ";rope:" + rope.Canonical();
  // What follows is there only where a model differs from the plain llama family, whose chains keep
  // their roots.
  if (IsPlain()) return text;
  std::string kinds;
  for (const LayerConfig& layer : layer_configs) kinds += CanonicalLayer(layer, feed_forward) + ",";
  if (kinds.size() > layer_configs.size()) text += ";layers=" + kinds;
  if (head_norm != HeadNorm::kNone) {
    text += ";head_norm=" + std::to_string(static_cast<int>(head_norm));
  }
  if (qkv_bias) text += ";qkv_bias";
  if (output_bias) text += ";output_bias";
  if (experts > 0) {
    text += ";experts=" + std::to_string(experts_used) + "/" + std::to_string(experts) + "x" +
            std::to_string(expert_feed_forward);
  }
  if (temperature_scale != 0) {
    text += ";temperature=" + Real(temperature_floor) + "," + Real(temperature_scale);
  }
  if (local_rope.dimensions > 0) text += ";local_rope:" + local_rope.Canonical();
  if (gelu) text += ";gelu";
  if (branch_norms) text += ";branch_norms";
  if (embedding_scale != 1) text += ";embedding_scale=" + Real(embedding_scale);
  if (query_scalar != 0) text += ";query_scalar=" + Real(query_scalar);
  return text;
}

}  // namespace corpusd
