// Fields and their defaults: transformers' configuration classes of each family.
#include "engine/model/hf_config.h"

#include <algorithm>
#include <cmath>

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
  return OkStatus();
}

Status CheckActivation(const ConfigReader& reader) {
  ASSIGN_OR_RETURN(const std::string activation, reader.TextOr("hidden_act", "silu"));
  if (activation == "silu" || activation == "swish") return OkStatus();
  return reader.Unsupported("activation '" + activation + "' is not supported: silu is");
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

// Families whose layers are all llama's but for their spans and biases.
Status ReadPlain(const ConfigReader& reader, const FamilyDefaults& defaults, HfConfig* config) {
  ModelConfig& c = config->model;
  RETURN_IF_ERROR(ReadShape(reader, defaults, &c));
  RETURN_IF_ERROR(CheckActivation(reader));
  RETURN_IF_ERROR(ReadRope(reader, defaults, &c));
  ASSIGN_OR_RETURN(c.feed_forward, reader.Number("intermediate_size", kFeedForwardMax));
  ASSIGN_OR_RETURN(config->layout.tied_output, reader.FlagOr("tie_word_embeddings", false));
  config->layout.half_split_rope = true;
  c.layer_configs.assign(c.layers, LayerConfig{.feed_forward = c.feed_forward});
  return OkStatus();
}

Status ReadLlama(const ConfigReader& reader, HfConfig* config) {
  ModelConfig& c = config->model;
  c.architecture = "llama";
  RETURN_IF_ERROR(ReadPlain(reader, {}, config));
  ASSIGN_OR_RETURN(c.qkv_bias, reader.FlagOr("attention_bias", false));
  c.output_bias = c.qkv_bias;
  ASSIGN_OR_RETURN(const bool inner_bias, reader.FlagOr("mlp_bias", false));
  if (inner_bias) return reader.Unsupported("'mlp_bias' is not supported");
  return OkStatus();
}

// A window for the layers that layer_types calls sliding; without it, for all from first_layer on.
Status ReadWindows(const ConfigReader& reader, uint32_t window_tokens, uint32_t first_layer,
                   ModelConfig* c) {
  std::vector<std::string> types;
  if (reader.Has("layer_types")) {
    ASSIGN_OR_RETURN(types, reader.Texts("layer_types", kLayersMax));
    if (types.size() < c->layers) return reader.Wrong("layer_types", "one string a layer");
  }
  for (uint32_t i = 0; i < c->layers; ++i) {
    if (types.empty() ? i < first_layer : types[i] == "full_attention") continue;
    if (!types.empty() && types[i] != "sliding_attention") {
      return reader.Unsupported("layer type '" + types[i] + "' is not supported");
    }
    c->layer_configs[i].span = AttentionSpan::kWindow;
    c->layer_configs[i].span_tokens = window_tokens;
  }
  return OkStatus();
}

Status ReadQwen2(const ConfigReader& reader, HfConfig* config) {
  ModelConfig& c = config->model;
  c.architecture = "qwen2";
  RETURN_IF_ERROR(ReadPlain(reader, {1e-6, 10000, 32768}, config));
  c.qkv_bias = true;
  ASSIGN_OR_RETURN(const bool windows, reader.FlagOr("use_sliding_window", false));
  if (!windows) return OkStatus();
  ASSIGN_OR_RETURN(const uint32_t tokens, reader.NumberOr("sliding_window", kContextMax, 4096));
  ASSIGN_OR_RETURN(const uint32_t first, reader.NumberOr("max_window_layers", kLayersMax, 28));
  return ReadWindows(reader, tokens, first, &c);
}

Status ReadMistral(const ConfigReader& reader, HfConfig* config) {
  ModelConfig& c = config->model;
  c.architecture = "mistral";
  RETURN_IF_ERROR(ReadPlain(reader, {1e-6, 10000, 131072}, config));
  if (reader.IsNull("sliding_window")) return OkStatus();
  ASSIGN_OR_RETURN(const uint32_t tokens, reader.NumberOr("sliding_window", kContextMax, 4096));
  return ReadWindows(reader, tokens, 0, &c);
}

Status ReadGemmaRope(const ConfigReader& reader, ModelConfig* c) {
  c->rope.dimensions = c->local_rope.dimensions = c->head_dim;
  if (!reader.Has("rope_parameters")) {
    ASSIGN_OR_RETURN(c->rope.base, reader.RealOr("rope_theta", 1000000));
    ASSIGN_OR_RETURN(c->local_rope.base, reader.RealOr("rope_local_base_freq", 10000));
    if (!reader.Has("rope_scaling")) return OkStatus();
    ASSIGN_OR_RETURN(const ConfigReader scaling, reader.Object("rope_scaling"));
    return ReadScaling(scaling, c->context_tokens, &c->rope);
  }
  ASSIGN_OR_RETURN(const ConfigReader both, reader.Object("rope_parameters"));
  ASSIGN_OR_RETURN(const ConfigReader full, both.Object("full_attention"));
  ASSIGN_OR_RETURN(const ConfigReader local, both.Object("sliding_attention"));
  ASSIGN_OR_RETURN(c->rope.base, full.RealOr("rope_theta", 1000000));
  ASSIGN_OR_RETURN(c->local_rope.base, local.RealOr("rope_theta", 10000));
  RETURN_IF_ERROR(ReadScaling(full, c->context_tokens, &c->rope));
  return ReadScaling(local, c->context_tokens, &c->local_rope);
}

Status CheckGemmaSwitches(const ConfigReader& reader) {
  ASSIGN_OR_RETURN(const std::string activation,
                   reader.TextOr("hidden_activation", "gelu_pytorch_tanh"));
  if (activation != "gelu_pytorch_tanh") {
    return reader.Unsupported("activation '" + activation + "' is not supported here");
  }
  for (const char* const key : {"attn_logit_softcapping", "final_logit_softcapping"}) {
    if (reader.Has(key)) return reader.Unsupported("'" + std::string(key) + "' is not supported");
  }
  for (const char* const key : {"attention_bias", "use_bidirectional_attention"}) {
    ASSIGN_OR_RETURN(const bool wanted, reader.FlagOr(key, false));
    if (wanted) return reader.Unsupported("'" + std::string(key) + "' is not supported");
  }
  return OkStatus();
}

// Gemma 3: windows but for every sixth layer, each kind with its own rotations; norms everywhere.
Status ReadGemma3(const ConfigReader& reader, HfConfig* config) {
  ModelConfig& c = config->model;
  c.architecture = "gemma3";
  RETURN_IF_ERROR(ReadShape(reader, {1e-6, 1000000, 131072}, &c));
  if (!reader.Has("head_dim")) c.head_dim = 256;
  RETURN_IF_ERROR(ReadGemmaRope(reader, &c));
  RETURN_IF_ERROR(CheckGemmaSwitches(reader));
  ASSIGN_OR_RETURN(c.feed_forward, reader.Number("intermediate_size", kFeedForwardMax));
  ASSIGN_OR_RETURN(c.query_scalar, reader.RealOr("query_pre_attn_scalar", 256));
  if (!(c.query_scalar > 0)) return reader.Wrong("query_pre_attn_scalar", "above 0");
  ASSIGN_OR_RETURN(config->layout.tied_output, reader.FlagOr("tie_word_embeddings", true));
  ASSIGN_OR_RETURN(const uint32_t window, reader.NumberOr("sliding_window", kContextMax, 4096));
  ASSIGN_OR_RETURN(const uint32_t pattern,
                   reader.NumberOr("sliding_window_pattern", kLayersMax, 6));
  c.layer_configs.assign(c.layers, LayerConfig{.feed_forward = c.feed_forward});
  RETURN_IF_ERROR(ReadWindows(reader, window, 0, &c));
  for (uint32_t i = 0; i < c.layers; ++i) {
    LayerConfig& layer = c.layer_configs[i];
    if (!reader.Has("layer_types") && (i + 1) % pattern == 0) {
      layer.span = AttentionSpan::kAll;
      layer.span_tokens = 0;
    }
    layer.local_rope = layer.span == AttentionSpan::kWindow;
  }
  c.head_norm = HeadNorm::kGain;
  c.gelu = c.branch_norms = true;
  c.embedding_scale = std::sqrt(static_cast<float>(c.hidden));
  config->layout.half_split_rope = config->layout.gains_from_one = true;
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
  RETURN_IF_ERROR(CheckActivation(reader));
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

// Matrices of 8-bit floats: with blocks as DeepSeek keeps them, or with a scale a row or a matrix.
// Others are refused; what a single matrix has, its own scales tell.
Status ReadQuantization(const ConfigReader& top, HfLayout* layout) {
  if (!top.Has("quantization_config")) return OkStatus();
  ASSIGN_OR_RETURN(const ConfigReader reader, top.Object("quantization_config"));
  ASSIGN_OR_RETURN(const std::string method, reader.TextOr("quant_method", ""));
  ASSIGN_OR_RETURN(const std::string format, reader.TextOr("format", ""));
  const bool rows =
      method == "fbgemm_fp8" || (method == "compressed-tensors" && format == "float-quantized");
  if (method != "fp8" && !rows) {
    return reader.Unsupported("quantized checkpoints of the kind '" + method +
                              (format.empty() ? "" : " " + format) +
                              "' are not supported: F32, F16, BF16 and 8-bit floats are");
  }
  if (rows || !reader.Has("weight_block_size")) return OkStatus();
  ASSIGN_OR_RETURN(const auto block, reader.Numbers("weight_block_size", 65536, 2));
  if (block.size() != 2 || block[0] < 1 || block[1] < 1) {
    return reader.Wrong("weight_block_size", "two numbers of 1 or more");
  }
  layout->fp8 = {block[0], block[1]};
  return OkStatus();
}

Status ReadFamily(const ConfigReader& reader, HfConfig* config) {
  RETURN_IF_ERROR(ReadQuantization(reader, &config->layout));
  const std::string& family = config->layout.family;
  if (family == "llama") return ReadLlama(reader, config);
  if (family == "llama4_text") return ReadLlama4(reader, config);
  if (family == "qwen2") return ReadQwen2(reader, config);
  if (family == "mistral") return ReadMistral(reader, config);
  if (family == "gemma3_text") return ReadGemma3(reader, config);
  return reader.Unsupported("model type '" + family +
                            "' is not supported: llama, llama4, qwen2, "
                            "mistral and gemma3 are");
}

}  // namespace

Result<HfConfig> ReadHfConfig(const nlohmann::json& object, const std::string& where) {
  HfConfig config;
  const ConfigReader top(object, where);
  ASSIGN_OR_RETURN(config.layout.family, top.Text("model_type"));
  // A model that sees images, too: its text model stands in an object of its own.
  const bool wrapped = config.layout.family == "llama4" || config.layout.family == "gemma3";
  if (wrapped && top.Has("text_config")) {
    RETURN_IF_ERROR(ReadQuantization(top, &config.layout));
    ASSIGN_OR_RETURN(const ConfigReader text, top.Object("text_config"));
    ASSIGN_OR_RETURN(config.layout.family,
                     text.TextOr("model_type", config.layout.family + "_text"));
    RETURN_IF_ERROR(ReadFamily(text, &config));
  } else {
    RETURN_IF_ERROR(ReadFamily(top, &config));
  }
  RETURN_IF_ERROR(ValidateModelConfig(config.model).WithContext(where));
  return config;
}

}  // namespace corpusd
