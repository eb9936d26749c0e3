// engine/model/model_config.h -- the shape of a transformer, read and checked from a model file's
// metadata. Plain data.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/kv/layer_parts.h"
#include "engine/model/rope_table.h"
#include "store/base/result.h"

namespace corpusd {

class GgufFile;

// What a query may see of the tokens up to itself.
enum class AttentionSpan : uint8_t {
  kAll,
  kChunk,   // those of its own chunk: position / span_tokens is the same
  kWindow,  // the last span_tokens, itself included
};

struct LayerConfig {
  AttentionSpan span = AttentionSpan::kAll;
  uint32_t span_tokens = 0;
  bool rope = true;           // false: no positions (NoPE)
  bool local_rope = false;    // turned by ModelConfig::local_rope
  bool temperature = false;   // queries grow with their position
  bool experts = false;       // the feed-forward part is a mixture beside a shared expert
  uint32_t feed_forward = 0;  // of the dense part, or of the shared expert
};

// RMSNorm of each head of queries and keys, before they are rotated (it commutes with that).
enum class HeadNorm : uint8_t {
  kNone,
  kUnitOnRope,  // without gains, on layers with RoPE only
  kGain,        // with gains of the layer, queries' and keys'
};

struct ModelConfig {
  std::string architecture;  // "llama", "llama4", "qwen2", "mistral", "gemma3"
  std::string name;          // general.name, or the folder's
  uint32_t layers = 0;
  uint32_t hidden = 0;
  uint32_t q_heads = 0;
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  uint32_t feed_forward = 0;
  uint32_t vocabulary = 0;
  uint32_t context_tokens = 0;
  float norm_epsilon = 1e-5F;
  RopeConfig rope;
  std::vector<LayerConfig> layer_configs;  // [layers]
  HeadNorm head_norm = HeadNorm::kNone;
  bool qkv_bias = false;
  bool output_bias = false;  // of the attention's output
  // Mixtures: how many experts there are, how many a token uses, and the inner size of each.
  uint32_t experts = 0;
  uint32_t experts_used = 0;
  uint32_t expert_feed_forward = 0;
  // Of layers with temperature, q is multiplied by 1 + scale * ln(1 + floor((position + 1) /
  // floor)).
  double temperature_floor = 0, temperature_scale = 0;
  RopeConfig local_rope;  // of layers that say so
  bool gelu = false;      // gated by GELU, not by SiLU
  bool branch_norms =
      false;  // RMSNorm after attention and feed-forward part, before they are added
  float embedding_scale = 1;  // multiplies embeddings
  double query_scalar = 0;    // attention is scaled by its -1/2 power; 0: by head_dim's

  // Whether the graph is the llama family's own: all layers see everything, and there is nothing in
  // them but norms, attention and SwiGLU.
  bool IsPlain() const;
  uint32_t FeedForwardMax() const;  // over all layers and experts
  // Rows of a table of rotations that all layers can make do with, if neighbouring rows that are
  // turned from one page are no more than a block.
  uint32_t RopePositions() const;
  // The same on every host; part of every chain root.
  std::string Canonical() const;
};

// Limits beyond any published model; they keep products inside 64 bits and buffers sane.
inline constexpr uint64_t kLayersMax = 1024;
inline constexpr uint64_t kHiddenMax = 65536;
inline constexpr uint64_t kHeadsMax = 1024;
inline constexpr uint64_t kHeadDimMax = 256;
inline constexpr uint64_t kFeedForwardMax = uint64_t{1} << 20;
inline constexpr uint64_t kVocabularyMax = uint64_t{1} << 22;
inline constexpr uint64_t kContextMax = uint64_t{1} << 24;
inline constexpr uint64_t kExpertsMax = 1024;

// The layers apart by what they see; null if all see everything.
std::shared_ptr<const LayerParts> LayerPartsOf(const ModelConfig& config);

// What a graph relies on beyond single numbers' limits. kInvalidArgument or kUnimplemented.
Status ValidateModelConfig(const ModelConfig& config);

// Every number is checked against limits that keep later arithmetic and allocations sane.
Result<ModelConfig> ReadModelConfig(const GgufFile& file);

}  // namespace corpusd
