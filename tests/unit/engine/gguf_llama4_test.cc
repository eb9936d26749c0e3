// Llama 4 as GGUF: a file of the same numbers as a folder is the same model.
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "engine/model/gguf.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_paths.h"
#include "tests/unit/engine/exact_kv_backend.h"
#include "tests/unit/engine/family_logits.h"

namespace corpusd {
namespace {

using nlohmann::json;

// What GGUF has no keys for is as published.
FamilyCase Published(size_t index, bool llama3_rope) {
  FamilyCase c = ReadFamilyCases(GoldenPath("families.jsonl"))[index];
  json& config = c.record["config"];
  config["attention_chunk_size"] = 8192;
  config["floor_scale"] = 8192;
  config["attn_scale"] = 0.1;
  config.erase("layer_types");
  if (!llama3_rope) {
    config["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 10000}};
  }
  return c;
}

// As llama.cpp's converter writes a folder.
class Converter {
 public:
  explicit Converter(const ModelSource& source) : source_(source), c_(source.config()) {}

  std::string Convert(uint32_t interleave, const std::vector<float>& frequency_factors,
                      bool full_attention) {
    writer_.AddString("general.architecture", "llama4");
    const std::vector<std::pair<const char*, uint32_t>> numbers = {
        {"block_count", c_.layers},
        {"embedding_length", c_.hidden},
        {"feed_forward_length", c_.feed_forward},
        {"context_length", c_.context_tokens},
        {"attention.head_count", c_.q_heads},
        {"attention.head_count_kv", c_.kv_heads},
        {"attention.key_length", c_.head_dim},
        {"attention.value_length", c_.head_dim},
        {"rope.dimension_count", c_.head_dim},
        {"expert_count", c_.experts},
        {"expert_used_count", c_.experts_used},
        {"expert_feed_forward_length", c_.expert_feed_forward},
        {"interleave_moe_layer_step", interleave}};
    for (const auto& [key, value] : numbers) writer_.AddUint("llama4." + std::string(key), value);
    if (full_attention) writer_.AddUint("llama4.attention.sliding_window", 0);
    writer_.AddFloat("llama4.attention.layer_norm_rms_epsilon", c_.norm_epsilon);
    writer_.AddFloat("llama4.rope.freq_base", static_cast<float>(c_.rope.base));
    if (!frequency_factors.empty())
      Add("rope_freqs.weight", {frequency_factors.size()}, frequency_factors);
    Matrix("token_embd.weight", c_.vocabulary, c_.hidden);
    Matrix("output.weight", c_.vocabulary, c_.hidden);
    Vector("output_norm.weight");
    for (uint32_t i = 0; i < c_.layers; ++i) Layer("blk." + std::to_string(i) + ".", i);
    return writer_.Finish();
  }

 private:
  void Layer(const std::string& prefix, uint32_t index) {
    const uint32_t q_rows = c_.q_heads * c_.head_dim, kv_rows = c_.kv_heads * c_.head_dim;
    Vector(prefix + "attn_norm.weight");
    Vector(prefix + "ffn_norm.weight");
    Matrix(prefix + "attn_q.weight", q_rows, c_.hidden);
    Matrix(prefix + "attn_k.weight", kv_rows, c_.hidden);
    Matrix(prefix + "attn_v.weight", kv_rows, c_.hidden);
    Matrix(prefix + "attn_output.weight", c_.hidden, q_rows);
    const LayerConfig& layer = c_.layer_configs[index];
    const std::string shared = layer.experts ? "_shexp" : "";
    Matrix(prefix + "ffn_gate" + shared + ".weight", layer.feed_forward, c_.hidden);
    Matrix(prefix + "ffn_up" + shared + ".weight", layer.feed_forward, c_.hidden);
    Matrix(prefix + "ffn_down" + shared + ".weight", c_.hidden, layer.feed_forward);
    if (!layer.experts) return;
    Matrix(prefix + "ffn_gate_inp.weight", c_.experts, c_.hidden);
    Experts(prefix + "ffn_gate_exps.weight", c_.expert_feed_forward, c_.hidden);
    Experts(prefix + "ffn_up_exps.weight", c_.expert_feed_forward, c_.hidden);
    Experts(prefix + "ffn_down_exps.weight", c_.hidden, c_.expert_feed_forward);
  }
  void Add(const std::string& name, const std::vector<uint64_t>& dims,
           const std::vector<float>& values) {
    writer_.AddTensor(
        name, 0, dims,
        {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)});
  }
  void Vector(const std::string& name) { Add(name, {c_.hidden}, *source_.Vector(name, c_.hidden)); }
  void Matrix(const std::string& name, uint32_t rows, uint32_t cols) {
    Add(name, {cols, rows}, FloatsOf(*source_.Matrix(name, rows, cols)));
  }
  void Experts(const std::string& name, uint32_t rows, uint32_t cols) {
    std::vector<float> all;
    for (uint32_t i = 0; i < c_.experts; ++i) {
      const auto one = FloatsOf(*source_.ExpertMatrix(name, i, c_.experts, rows, cols));
      all.insert(all.end(), one.begin(), one.end());
    }
    Add(name, {cols, rows, c_.experts}, all);
  }
  static std::vector<float> FloatsOf(const SourceMatrix& matrix) {
    EXPECT_EQ(matrix.weight.type, WeightType::kF32);
    const auto* const first = reinterpret_cast<const float*>(matrix.weight.bytes.data());
    return {first, first + matrix.weight.bytes.size() / sizeof(float)};
  }

  const ModelSource& source_;
  const ModelConfig& c_;
  GgufWriter writer_;
};

// llama3's scaling, with one border between what is stretched and what is not.
std::vector<float> FrequencyFactors(uint32_t head_dim, double base, double factor,
                                    double original) {
  std::vector<float> factors;
  for (uint32_t i = 0; i < head_dim / 2; ++i) {
    const double wave = 2 * std::numbers::pi * std::pow(base, 2.0 * i / head_dim);
    factors.push_back(static_cast<float>(wave > original ? factor : 1));
  }
  return factors;
}

TEST(GgufLlama4, AFileIsTheModelOfTheFolder) {
  struct Variant {
    size_t family;
    uint32_t interleave;
    bool llama3_rope;
  };
  for (const Variant& v : {Variant{0, 1, false}, Variant{1, 2, false}, Variant{0, 1, true}}) {
    const FamilyCase c = Published(v.family, v.llama3_rope);
    SCOPED_TRACE(c.name);
    const TempDir folder, files;
    ExactKvBackend backend, file_backend;
    const LoadedFamily loaded = LoadFamily(c, folder.path(), backend);
    ASSERT_NE(loaded.model, nullptr);
    const ModelConfig& shape = loaded.model->config();
    const auto factors = v.llama3_rope ? FrequencyFactors(shape.head_dim, shape.rope.base, 16, 64)
                                       : std::vector<float>();
    const std::string path =
        files.Write("model.gguf", Converter(*loaded.source).Convert(v.interleave, factors, false));
    const auto source = OpenModelSource(path);
    ASSERT_TRUE(source.ok()) << source.status().ToString();
    const auto model = LoadModel(**source, file_backend);
    ASSERT_TRUE(model.ok()) << model.status().ToString();
    if (!v.llama3_rope) {
      EXPECT_EQ((*model)->config().Canonical(), loaded.model->config().Canonical());
    }
    const auto expected = AllLogits(*loaded.model, backend, c.ids, 0);
    const auto got = AllLogits(**model, file_backend, c.ids, 0);
    ASSERT_EQ(got.size(), expected.size());
    for (size_t position = 0; position < got.size(); ++position) {
      for (size_t i = 0; i < got[position].size(); ++i) {
        ASSERT_NEAR(got[position][i], expected[position][i], v.llama3_rope ? 2e-5 : 0)
            << "position " << position;
      }
    }
  }
}

TEST(GgufLlama4, AWindowOfZeroMeansPositionsEverywhere) {
  FamilyCase c = Published(0, /*llama3_rope=*/false);
  const TempDir folder, files;
  ExactKvBackend backend;
  const LoadedFamily loaded = LoadFamily(c, folder.path(), backend);
  ASSERT_NE(loaded.model, nullptr);
  const auto file = GgufFile::Open(
      files.Write("model.gguf", Converter(*loaded.source).Convert(1, {}, /*full_attention=*/true)));
  ASSERT_TRUE(file.ok());
  const auto config = ReadModelConfig(**file);
  ASSERT_TRUE(config.ok()) << config.status().ToString();
  for (const LayerConfig& layer : config->layer_configs) {
    EXPECT_TRUE(layer.rope && layer.experts && !layer.temperature);
    EXPECT_EQ(layer.span, AttentionSpan::kAll);
  }
}

}  // namespace
}  // namespace corpusd
