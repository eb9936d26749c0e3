#include "engine/model/model_config.h"

#include <cstdio>

#include "engine/model/gguf.h"
#include "kernels/reference/dequantize.h"

namespace corpusd {
namespace {

// Limits beyond any published llama-family model; they keep products inside 64 bits and buffers
// sane.
constexpr uint64_t kLayersMax = 1024;
constexpr uint64_t kHiddenMax = 65536;
constexpr uint64_t kHeadsMax = 1024;
constexpr uint64_t kHeadDimMax = 256;
constexpr uint64_t kFeedForwardMax = uint64_t{1} << 20;
constexpr uint64_t kVocabularyMax = uint64_t{1} << 22;
constexpr uint64_t kContextMax = uint64_t{1} << 24;
constexpr uint64_t kRopeTableBytesMax = uint64_t{512} << 20;

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

 private:
  const GgufFile& file_;
  const std::string prefix_;
};

Status ReadScaling(const GgufFile& file, const MetadataReader& reader, RopeConfig* rope) {
  const std::string key = "llama.rope.scaling.type";
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

Status CheckShape(const ModelConfig& c) {
  if (c.q_heads % c.kv_heads != 0) {
    return InvalidArgumentError(std::to_string(c.q_heads) + " query heads cannot share " +
                                std::to_string(c.kv_heads) + " KV heads evenly");
  }
  if (c.head_dim % 16 != 0) {
    return UnimplementedError("a head dimension of " + std::to_string(c.head_dim) +
                              " is not a multiple of 16");
  }
  // The table of rotations holds one float pair per position and pair of dimensions.
  if (uint64_t{c.context_tokens} * c.rope.dimensions * sizeof(float) > kRopeTableBytesMax) {
    return UnimplementedError("a context of " + std::to_string(c.context_tokens) +
                              " tokens is beyond what this version serves: its rotation table "
                              "would take over 512 MiB");
  }
  return ValidateRope(c.rope, c.head_dim);
}

}  // namespace

std::string ModelConfig::Canonical() const {
  char epsilon[32];
  std::snprintf(epsilon, sizeof epsilon, "%.9g", static_cast<double>(norm_epsilon));
  return "arch=" + architecture + ";layers=" + std::to_string(layers) +
         ";hidden=" + std::to_string(hidden) + ";heads=" + std::to_string(q_heads) + "/" +
         std::to_string(kv_heads) + ";dim=" + std::to_string(head_dim) +
         ";ff=" + std::to_string(feed_forward) + ";vocab=" + std::to_string(vocabulary) +
         ";eps=" + epsilon + ";rope:" + rope.Canonical();
}

Result<ModelConfig> ReadModelConfig(const GgufFile& file) {
  ModelConfig c;
  ASSIGN_OR_RETURN(c.architecture, file.GetString("general.architecture"));
  if (c.architecture != "llama") {
    return UnimplementedError("architecture '" + c.architecture +
                              "' is not supported in this version: llama-family files "
                              "(general.architecture 'llama') are");
  }
  if (const auto name = file.GetString("general.name"); name.ok()) c.name = *name;
  const MetadataReader reader(file, "llama.");
  ASSIGN_OR_RETURN(c.layers, reader.Number("block_count", kLayersMax));
  ASSIGN_OR_RETURN(c.hidden, reader.Number("embedding_length", kHiddenMax));
  ASSIGN_OR_RETURN(c.feed_forward, reader.Number("feed_forward_length", kFeedForwardMax));
  ASSIGN_OR_RETURN(c.context_tokens, reader.Number("context_length", kContextMax));
  ASSIGN_OR_RETURN(c.q_heads, reader.Number("attention.head_count", kHeadsMax));
  ASSIGN_OR_RETURN(c.kv_heads, reader.NumberOr("attention.head_count_kv", kHeadsMax, c.q_heads));
  ASSIGN_OR_RETURN(c.head_dim,
                   reader.NumberOr("attention.key_length", kHeadDimMax, c.hidden / c.q_heads));
  ASSIGN_OR_RETURN(const uint32_t value_dim,
                   reader.NumberOr("attention.value_length", kHeadDimMax, c.head_dim));
  if (value_dim != c.head_dim) {
    return UnimplementedError("keys and values of different lengths are not supported");
  }
  ASSIGN_OR_RETURN(const double epsilon, reader.RealOr("attention.layer_norm_rms_epsilon", 1e-5));
  c.norm_epsilon = static_cast<float>(epsilon);
  ASSIGN_OR_RETURN(c.rope.base, reader.RealOr("rope.freq_base", 10000));
  ASSIGN_OR_RETURN(c.rope.dimensions,
                   reader.NumberOr("rope.dimension_count", kHeadDimMax, c.head_dim));
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
  RETURN_IF_ERROR(CheckShape(c));
  return c;
}

}  // namespace corpusd
