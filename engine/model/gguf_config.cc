// Keys and their defaults: llama.cpp's readers of each architecture.
#include <algorithm>
#include <array>
#include <cmath>

#include "engine/model/gguf.h"
#include "engine/model/model_config.h"
#include "kernels/reference/dequantize.h"

namespace corpusd {
namespace {

class MetadataReader {
 public:
  MetadataReader(const GgufFile& file, std::string prefix)
      : file_(file), prefix_(std::move(prefix)) {}

  Result<uint32_t> Number(const std::string& key, uint64_t max) const {
    ASSIGN_OR_RETURN(const uint64_t value, file_.GetUint(prefix_ + key));
    if (value < 1 || value > max) {
      return InvalidArgumentError(prefix_ + key + " is " + std::to_string(value) +
                                  ", expected 1 to " + std::to_string(max));
    }
    return static_cast<uint32_t>(value);
  }
  Result<uint32_t> NumberOr(const std::string& key, uint64_t max, uint32_t otherwise) const {
    return file_.Has(prefix_ + key) ? Number(key, max) : Result<uint32_t>(otherwise);
  }
  Result<double> RealOr(const std::string& key, double otherwise) const {
    return file_.Has(prefix_ + key) ? file_.GetFloat(prefix_ + key) : Result<double>(otherwise);
  }

  const GgufFile& file() const { return file_; }
  const std::string& prefix() const { return prefix_; }

 private:
  const GgufFile& file_;
  const std::string prefix_;
};

Status ReadScaling(const GgufFile& file, const MetadataReader& reader, RopeConfig* rope) {
  const std::string key = reader.prefix() + "rope.scaling.type";
  if (!file.Has(key)) return OkStatus();
  ASSIGN_OR_RETURN(const std::string type, file.GetString(key));
  if (type == "none") return OkStatus();
  if (type == "linear") {
    rope->scaling = RopeScaling::kLinear;
  } else if (type == "yarn") {
    rope->scaling = RopeScaling::kYarn;
  } else {
    return UnimplementedError(key + " '" + type + "' is not known: none, linear and yarn are");
  }
  ASSIGN_OR_RETURN(rope->factor, reader.RealOr("rope.scaling.factor", 1));
  ASSIGN_OR_RETURN(rope->original_context,
                   reader.RealOr("rope.scaling.original_context_length", 0));
  return OkStatus();
}

// The "llama3" frequency factors come as a tensor.
Status ReadFrequencyFactors(const GgufFile& file, RopeConfig* rope) {
  const GgufTensor* const tensor = file.FindTensor("rope_freqs.weight");
  if (tensor == nullptr) return OkStatus();
  if (tensor->dims.size() != 1 || tensor->dims[0] != rope->dimensions / 2 ||
      tensor->type != WeightType::kF32) {
    return InvalidArgumentError("tensor 'rope_freqs.weight' should be " +
                                std::to_string(rope->dimensions / 2) + " F32 numbers");
  }
  rope->frequency_factors.resize(tensor->dims[0]);
  DequantizeRow(tensor->type, tensor->bytes.data(), rope->frequency_factors.data(),
                static_cast<uint32_t>(tensor->dims[0]));
  return OkStatus();
}

// Numbers that every architecture has.
Status ReadShape(const MetadataReader& reader, ModelConfig* c) {
  ASSIGN_OR_RETURN(c->layers, reader.Number("block_count", kLayersMax));
  ASSIGN_OR_RETURN(c->hidden, reader.Number("embedding_length", kHiddenMax));
  ASSIGN_OR_RETURN(c->feed_forward, reader.Number("feed_forward_length", kFeedForwardMax));
  ASSIGN_OR_RETURN(c->context_tokens, reader.Number("context_length", kContextMax));
  ASSIGN_OR_RETURN(c->q_heads, reader.Number("attention.head_count", kHeadsMax));
  ASSIGN_OR_RETURN(c->kv_heads, reader.NumberOr("attention.head_count_kv", kHeadsMax, c->q_heads));
  ASSIGN_OR_RETURN(c->head_dim,
                   reader.NumberOr("attention.key_length", kHeadDimMax, c->hidden / c->q_heads));
  ASSIGN_OR_RETURN(const uint32_t value_dim,
                   reader.NumberOr("attention.value_length", kHeadDimMax, c->head_dim));
  if (value_dim != c->head_dim) {
    return UnimplementedError("keys and values of different lengths are not supported");
  }
  ASSIGN_OR_RETURN(const double epsilon, reader.RealOr("attention.layer_norm_rms_epsilon", 1e-5));
  c->norm_epsilon = static_cast<float>(epsilon);
  ASSIGN_OR_RETURN(c->rope.base, reader.RealOr("rope.freq_base", 10000));
  ASSIGN_OR_RETURN(c->rope.dimensions,
                   reader.NumberOr("rope.dimension_count", kHeadDimMax, c->head_dim));
  return OkStatus();
}

// Windows but for every sixth layer, each kind with its own rotations; norms everywhere. What no
// key says is as published.
Status ReadGemma3(const MetadataReader& reader, ModelConfig* c) {
  ASSIGN_OR_RETURN(const uint32_t window, reader.Number("attention.sliding_window", kContextMax));
  ASSIGN_OR_RETURN(const uint32_t pattern,
                   reader.NumberOr("attention.sliding_window_pattern", kLayersMax, 6));
  c->local_rope.dimensions = c->rope.dimensions;
  ASSIGN_OR_RETURN(c->local_rope.base, reader.RealOr("rope.freq_base_swa", 10000));
  for (uint32_t i = 0; i < c->layers; ++i) {
    if ((i + 1) % pattern == 0) continue;
    c->layer_configs[i].span = AttentionSpan::kWindow;
    c->layer_configs[i].span_tokens = window;
    c->layer_configs[i].local_rope = true;
  }
  for (const char* const key : {"attn_logit_softcapping", "final_logit_softcapping"}) {
    ASSIGN_OR_RETURN(const double cap, reader.RealOr(key, 0));
    if (cap != 0) return UnimplementedError(reader.prefix() + key + " is not supported");
  }
  c->head_norm = HeadNorm::kGain;
  c->gelu = c->branch_norms = true;
  c->embedding_scale = std::sqrt(static_cast<float>(c->hidden));
  // Of the published sizes the one of 62 layers alone scales by its hidden size.
  c->query_scalar = c->layers == 62 ? c->hidden / c->q_heads : c->head_dim;
  return OkStatus();
}

// Chunks but for every fourth layer, which has no positions; what no key says is as published. A
// window of 0 says that all layers have positions and see everything.
Status ReadLlama4(const MetadataReader& reader, ModelConfig* c) {
  ASSIGN_OR_RETURN(c->experts, reader.Number("expert_count", kExpertsMax));
  ASSIGN_OR_RETURN(c->experts_used, reader.Number("expert_used_count", kExpertsMax));
  ASSIGN_OR_RETURN(c->expert_feed_forward,
                   reader.Number("expert_feed_forward_length", kFeedForwardMax));
  ASSIGN_OR_RETURN(const uint32_t step, reader.Number("interleave_moe_layer_step", kLayersMax));
  ASSIGN_OR_RETURN(const uint32_t pattern,
                   reader.NumberOr("attention.sliding_window_pattern", kLayersMax, 4));
  const auto window = reader.file().GetUint(reader.prefix() + "attention.sliding_window");
  const bool chunked = !window.ok() || *window > 0;
  for (uint32_t i = 0; i < c->layers; ++i) {
    LayerConfig& layer = c->layer_configs[i];
    layer.experts = (i + 1) % step == 0;
    if (layer.experts) layer.feed_forward = c->expert_feed_forward;
    layer.rope = !chunked || (i + 1) % pattern != 0;
    layer.temperature = !layer.rope;
    if (!chunked || !layer.rope) continue;
    layer.span = AttentionSpan::kChunk;
    layer.span_tokens = 8192;
  }
  c->temperature_floor = 8192;
  c->temperature_scale = 0.1;
  // Of the published models the one of 128 experts alone has no norm of heads.
  if (c->experts != 128) c->head_norm = HeadNorm::kUnitOnRope;
  return OkStatus();
}

}  // namespace

Result<ModelConfig> ReadModelConfig(const GgufFile& file) {
  ModelConfig c;
  ASSIGN_OR_RETURN(c.architecture, file.GetString("general.architecture"));
  constexpr std::array kArchitectures = {"llama", "llama4", "qwen2", "gemma3"};
  if (std::count(kArchitectures.begin(), kArchitectures.end(), c.architecture) == 0) {
    return UnimplementedError("architecture '" + c.architecture +
                              "' is not supported in this version: 'llama', 'llama4', 'qwen2' and "
                              "'gemma3' are (general.architecture)");
  }
  if (const auto name = file.GetString("general.name"); name.ok()) c.name = *name;
  const MetadataReader reader(file, c.architecture + ".");
  RETURN_IF_ERROR(ReadShape(reader, &c));
  RETURN_IF_ERROR(ReadScaling(file, reader, &c.rope));
  RETURN_IF_ERROR(ReadFrequencyFactors(file, &c.rope));
  const GgufTensor* const embedding = file.FindTensor("token_embd.weight");
  if (embedding == nullptr || embedding->dims.size() != 2) {
    return InvalidArgumentError("tensor 'token_embd.weight' is missing or not a matrix");
  }
  if (embedding->dims[1] < 1 || embedding->dims[1] > kVocabularyMax) {
    return InvalidArgumentError("a vocabulary of " + std::to_string(embedding->dims[1]) +
                                " tokens is beyond " + std::to_string(kVocabularyMax));
  }
  c.vocabulary = static_cast<uint32_t>(embedding->dims[1]);
  c.layer_configs.assign(c.layers, LayerConfig{.feed_forward = c.feed_forward});
  c.qkv_bias = c.architecture == "qwen2";
  if (c.architecture == "gemma3") RETURN_IF_ERROR(ReadGemma3(reader, &c));
  if (c.architecture == "llama4") RETURN_IF_ERROR(ReadLlama4(reader, &c));
  RETURN_IF_ERROR(ValidateModelConfig(c));
  return c;
}

}  // namespace corpusd
