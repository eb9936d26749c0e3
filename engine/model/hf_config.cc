// Fields and their defaults: transformers' configuration classes of each family.
#include "engine/model/hf_config.h"

#include <algorithm>

#include "engine/model/config_reader.h"
#include "engine/model/json_text.h"

namespace corpusd {
namespace {

// What a family's configuration class takes for fields that a file leaves out.
struct FamilyDefaults {
  double norm_epsilon = 1e-6;
  double rope_base = 10000;
  uint32_t context_tokens = 2048;
};

// Numbers that every family has.
Status ReadShape(const ConfigReader& reader, const FamilyDefaults& defaults, ModelConfig* c) {
  ASSIGN_OR_RETURN(c->layers, reader.Number("num_hidden_layers", kLayersMax));
  ASSIGN_OR_RETURN(c->hidden, reader.Number("hidden_size", kHiddenMax));
  ASSIGN_OR_RETURN(c->vocabulary, reader.Number("vocab_size", kVocabularyMax));
  ASSIGN_OR_RETURN(c->q_heads, reader.Number("num_attention_heads", kHeadsMax));
  ASSIGN_OR_RETURN(c->kv_heads, reader.NumberOr("num_key_value_heads", kHeadsMax, c->q_heads));
  ASSIGN_OR_RETURN(c->head_dim, reader.NumberOr("head_dim", kHeadDimMax, c->hidden / c->q_heads));
  if (c->head_dim < 1 || c->head_dim > kHeadDimMax) {
    return reader.Wrong("hidden_size", "1 to " + std::to_string(kHeadDimMax) + " a head");
  }
  ASSIGN_OR_RETURN(c->context_tokens, reader.NumberOr("max_position_embeddings", kContextMax,
                                                      defaults.context_tokens));
  ASSIGN_OR_RETURN(const double epsilon, reader.RealOr("rms_norm_eps", defaults.norm_epsilon));
  c->norm_epsilon = static_cast<float>(epsilon);
  ASSIGN_OR_RETURN(const std::string activation, reader.TextOr("hidden_act", "silu"));
  if (activation != "silu" && activation != "swish") {
    return reader.Unsupported("activation '" + activation + "' is not supported: silu is");
  }
  return OkStatus();
}

Result<std::vector<float>> ReadLlama3Factors(const ConfigReader& reader, const RopeConfig& rope,
                                             uint32_t context_tokens) {
  Llama3Scaling scaling;
  ASSIGN_OR_RETURN(scaling.factor, reader.Real("factor"));
  ASSIGN_OR_RETURN(scaling.low_frequency_factor, reader.Real("low_freq_factor"));
  ASSIGN_OR_RETURN(scaling.high_frequency_factor, reader.Real("high_freq_factor"));
  ASSIGN_OR_RETURN(scaling.original_context,
                   reader.RealOr("original_max_position_embeddings", context_tokens));
  const double low = scaling.low_frequency_factor;
  if (!(scaling.factor >= 1) || !(low > 0) || scaling.high_frequency_factor < low ||
      !(scaling.original_context >= 1)) {
    return InvalidArgumentError(reader.where() +
                                ": 'llama3' scaling needs factor >= 1, 0 < "
                                "low_freq_factor <= high_freq_factor and a context of 1 or more");
  }
  return Llama3FrequencyFactors(rope.base, rope.dimensions, scaling);
}

Status ReadScaling(const ConfigReader& reader, uint32_t context_tokens, RopeConfig* rope) {
  ASSIGN_OR_RETURN(const std::string older, reader.TextOr("type", "default"));
  ASSIGN_OR_RETURN(const std::string type, reader.TextOr("rope_type", older));
  if (type == "default") return OkStatus();
  if (type == "llama3") {
    ASSIGN_OR_RETURN(rope->frequency_factors, ReadLlama3Factors(reader, *rope, context_tokens));
    return OkStatus();
  }
  if (type == "linear") {
    rope->scaling = RopeScaling::kLinear;
    ASSIGN_OR_RETURN(rope->factor, reader.Real("factor"));
    return OkStatus();
  }
  return reader.Unsupported("rope type '" + type +
                            "' is not supported: default, linear and llama3 are");
}

// transformers 5 keeps all of it in rope_parameters; before, the base stood beside rope_scaling.
Status ReadRope(const ConfigReader& reader, const FamilyDefaults& defaults, ModelConfig* c) {
  RopeConfig& rope = c->rope;
  ASSIGN_OR_RETURN(rope.base, reader.RealOr("rope_theta", defaults.rope_base));
  ASSIGN_OR_RETURN(double share, reader.RealOr("partial_rotary_factor", 1));
  for (const char* const key : {"rope_parameters", "rope_scaling"}) {
    if (!reader.Has(key)) continue;
    ASSIGN_OR_RETURN(const ConfigReader scaling, reader.Object(key));
    ASSIGN_OR_RETURN(rope.base, scaling.RealOr("rope_theta", rope.base));
    ASSIGN_OR_RETURN(share, scaling.RealOr("partial_rotary_factor", share));
  }
  if (!(share > 0) || share > 1) return reader.Wrong("partial_rotary_factor", "above 0, at most 1");
  rope.dimensions = static_cast<uint32_t>(c->head_dim * share);
  RETURN_IF_ERROR(ValidateRope(rope, c->head_dim).WithContext(reader.where()));
  for (const char* const key : {"rope_parameters", "rope_scaling"}) {
    if (!reader.Has(key)) continue;
    ASSIGN_OR_RETURN(const ConfigReader scaling, reader.Object(key));
    return ReadScaling(scaling, c->context_tokens, &rope);
  }
  return OkStatus();
}

Status ReadLlama(const ConfigReader& reader, HfConfig* config) {
  ModelConfig& c = config->model;
  const FamilyDefaults defaults;
  c.architecture = "llama";
  RETURN_IF_ERROR(ReadShape(reader, defaults, &c));
  RETURN_IF_ERROR(ReadRope(reader, defaults, &c));
  ASSIGN_OR_RETURN(c.feed_forward, reader.Number("intermediate_size", kFeedForwardMax));
  ASSIGN_OR_RETURN(c.qkv_bias, reader.FlagOr("attention_bias", false));
  c.output_bias = c.qkv_bias;
  ASSIGN_OR_RETURN(const bool inner_bias, reader.FlagOr("mlp_bias", false));
  if (inner_bias) return reader.Unsupported("'mlp_bias' is not supported");
  ASSIGN_OR_RETURN(config->layout.tied_output, reader.FlagOr("tie_word_embeddings", false));
  config->layout.half_split_rope = true;
  c.layer_configs.assign(c.layers, LayerConfig{.feed_forward = c.feed_forward});
  return OkStatus();
}

// Which layers have RoPE: 1, or none: 0.
Result<std::vector<uint32_t>> ReadRopeLayers(const ConfigReader& reader, uint32_t layers) {
  std::vector<uint32_t> rope;
  if (reader.Has("no_rope_layers")) {
    ASSIGN_OR_RETURN(rope, reader.Numbers("no_rope_layers", 1, kLayersMax));
  }
  if (rope.empty()) {
    ASSIGN_OR_RETURN(const uint32_t interval,
                     reader.NumberOr("no_rope_layer_interval", kLayersMax, 4));
    for (uint32_t i = 0; i < layers; ++i) rope.push_back((i + 1) % interval != 0 ? 1 : 0);
  }
  if (rope.size() < layers) return reader.Wrong("no_rope_layers", "one number a layer");
  return rope;
}

Result<std::vector<uint32_t>> ReadExpertLayers(const ConfigReader& reader, uint32_t layers) {
  if (reader.Has("moe_layers")) return reader.Numbers("moe_layers", layers - 1, layers);
  ASSIGN_OR_RETURN(const uint32_t step,
                   reader.NumberOr("interleave_moe_layer_step", kLayersMax, 1));
  std::vector<uint32_t> numbers;
  for (uint32_t i = step - 1; i < layers; i += step) numbers.push_back(i);
  return numbers;
}

// Llama 4's layers: chunked-local ones with RoPE, global ones without positions; dense or with
// experts.
Status ReadLlama4Layers(const ConfigReader& reader, uint32_t dense_feed_forward, ModelConfig* c) {
  ASSIGN_OR_RETURN(const auto rope, ReadRopeLayers(reader, c->layers));
  ASSIGN_OR_RETURN(const auto expert_layers, ReadExpertLayers(reader, c->layers));
  std::vector<std::string> types;
  if (reader.Has("layer_types")) {
    ASSIGN_OR_RETURN(types, reader.Texts("layer_types", kLayersMax));
    if (types.size() < c->layers) return reader.Wrong("layer_types", "one string a layer");
  }
  uint32_t chunk_tokens = 0;  // none
  if (!reader.IsNull("attention_chunk_size")) {
    ASSIGN_OR_RETURN(chunk_tokens, reader.NumberOr("attention_chunk_size", kContextMax, 8192));
  }
  ASSIGN_OR_RETURN(const bool temperature, reader.FlagOr("attn_temperature_tuning", true));
  for (uint32_t i = 0; i < c->layers; ++i) {
    LayerConfig layer;
    layer.rope = rope[i] != 0;
    layer.temperature = temperature && !layer.rope;
    layer.experts = std::find(expert_layers.begin(), expert_layers.end(), i) != expert_layers.end();
    layer.feed_forward = layer.experts ? c->expert_feed_forward : dense_feed_forward;
    const std::string type = !types.empty()                   ? types[i]
                             : layer.rope && chunk_tokens > 0 ? "chunked_attention"
                                                              : "full_attention";
    if (type == "chunked_attention") {
      if (chunk_tokens == 0) return reader.Wrong("attention_chunk_size", "tokens of a chunk");
      layer.span = AttentionSpan::kChunk;
      layer.span_tokens = chunk_tokens;
    } else if (type != "full_attention") {
      return reader.Unsupported("layer type '" + type + "' is not supported");
    }
    c->layer_configs.push_back(layer);
  }
  return OkStatus();
}

Status ReadLlama4(const ConfigReader& reader, HfConfig* config) {
  ModelConfig& c = config->model;
  const FamilyDefaults defaults{1e-5, 500000, 131072};
  c.architecture = "llama4";
  RETURN_IF_ERROR(ReadShape(reader, defaults, &c));
  if (!reader.Has("head_dim") && !reader.IsNull("head_dim")) c.head_dim = 128;
  RETURN_IF_ERROR(ReadRope(reader, defaults, &c));
  ASSIGN_OR_RETURN(c.expert_feed_forward,
                   reader.NumberOr("intermediate_size", kFeedForwardMax, 8192));
  ASSIGN_OR_RETURN(c.feed_forward,
                   reader.NumberOr("intermediate_size_mlp", kFeedForwardMax, 16384));
  ASSIGN_OR_RETURN(c.experts, reader.NumberOr("num_local_experts", kExpertsMax, 16));
  ASSIGN_OR_RETURN(c.experts_used, reader.NumberOr("num_experts_per_tok", kExpertsMax, 1));
  ASSIGN_OR_RETURN(const bool head_norm, reader.FlagOr("use_qk_norm", true));
  if (head_norm) c.head_norm = HeadNorm::kUnitOnRope;
  RETURN_IF_ERROR(ReadLlama4Layers(reader, c.feed_forward, &c));
  ASSIGN_OR_RETURN(c.temperature_floor, reader.RealOr("floor_scale", 8192));
  ASSIGN_OR_RETURN(c.temperature_scale, reader.RealOr("attn_scale", 0.1));
  if (!(c.temperature_floor >= 1)) return reader.Wrong("floor_scale", "1 or more");
  ASSIGN_OR_RETURN(c.qkv_bias, reader.FlagOr("attention_bias", false));
  c.output_bias = c.qkv_bias;
  ASSIGN_OR_RETURN(config->layout.tied_output, reader.FlagOr("tie_word_embeddings", false));
  return OkStatus();
}

Status ReadFamily(const ConfigReader& reader, HfConfig* config) {
  if (reader.Has("quantization_config")) {
    return reader.Unsupported("quantized checkpoints are not supported: F32, F16 and BF16 are");
  }
  const std::string& family = config->layout.family;
  if (family == "llama") return ReadLlama(reader, config);
  if (family == "llama4_text") return ReadLlama4(reader, config);
  return reader.Unsupported("model type '" + family + "' is not supported: llama and llama4 are");
}

}  // namespace

Result<HfConfig> ReadHfConfig(const nlohmann::json& object, const std::string& where) {
  HfConfig config;
  const ConfigReader top(object, where);
  ASSIGN_OR_RETURN(config.layout.family, top.Text("model_type"));
  // A model that sees images, too: its text model stands in an object of its own.
  if (config.layout.family == "llama4" && top.Has("text_config")) {
    if (top.Has("quantization_config")) {
      return top.Unsupported("quantized checkpoints are not supported: F32, F16 and BF16 are");
    }
    ASSIGN_OR_RETURN(const ConfigReader text, top.Object("text_config"));
    ASSIGN_OR_RETURN(config.layout.family, text.TextOr("model_type", "llama4_text"));
    RETURN_IF_ERROR(ReadFamily(text, &config));
  } else {
    RETURN_IF_ERROR(ReadFamily(top, &config));
  }
  RETURN_IF_ERROR(ValidateModelConfig(config.model).WithContext(where));
  return config;
}

}  // namespace corpusd
