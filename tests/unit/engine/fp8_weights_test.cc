#include "engine/model/fp8_weights.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <nlohmann/json.hpp>

#include "engine/model/hf_source.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_dir.h"

namespace corpusd {
namespace {

TEST(Fp8Value, KnownCodes) {
  EXPECT_EQ(Fp8Value(0x00), 0.0F);
  EXPECT_EQ(Fp8Value(0x01), std::ldexp(1.0F, -9));  // the smallest
  EXPECT_EQ(Fp8Value(0x07), 7 * std::ldexp(1.0F, -9));
  EXPECT_EQ(Fp8Value(0x08), std::ldexp(1.0F, -6));  // the smallest normal one
  EXPECT_EQ(Fp8Value(0x38), 1.0F);
  EXPECT_EQ(Fp8Value(0x39), 1.125F);
  EXPECT_EQ(Fp8Value(0xb8), -1.0F);
  EXPECT_EQ(Fp8Value(0x7e), 448.0F);  // the largest
  EXPECT_TRUE(std::isnan(Fp8Value(0x7f)) && std::isnan(Fp8Value(0xff)));
  for (uint32_t code = 1; code < 0x7f; ++code) {
    EXPECT_GT(Fp8Value(static_cast<uint8_t>(code)), Fp8Value(static_cast<uint8_t>(code - 1)));
  }
}

std::string Codes(size_t count) {
  std::string codes;
  for (size_t i = 0; i < count; ++i)
    codes.push_back(static_cast<char>(i * 37 % 0x7f + i % 2 * 128));
  return codes;
}

std::string Floats(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

class Fp8FolderTest : public testing::Test {
 protected:
  // A folder whose embedding is [7, 16] and whose first queries are [16, 16], in 8-bit floats.
  void Write(const nlohmann::json& quantization, const std::string& ending,
             const std::vector<uint64_t>& shape, const std::vector<float>& scales) {
    nlohmann::json config = {{"model_type", "llama"},
                             {"num_hidden_layers", 1},
                             {"hidden_size", 16},
                             {"vocab_size", 7},
                             {"num_attention_heads", 1},
                             {"intermediate_size", 32},
                             {"max_position_embeddings", 64}};
    config["quantization_config"] = quantization;
    dir_.Write("config.json", config.dump());
    SafetensorsWriter writer;
    writer.Add("model.embed_tokens.weight", "BF16", {7, 16}, std::string(7 * 16 * 2, '\0'));
    const std::string name = "model.layers.0.self_attn.q_proj.weight";
    writer.Add(name, "F8_E4M3", {16, 16}, Codes(256));
    if (!ending.empty()) writer.Add(name + ending, "F32", shape, Floats(scales));
    dir_.Write("model.safetensors", writer.Finish());
  }

  Result<SourceMatrix> Queries() {
    auto source = HfSource::Open(dir_.path());
    if (!source.ok()) return source.status();
    source_ = std::move(*source);
    return source_->Matrix("blk.0.attn_q.weight", 16, 16);
  }

  // scale: of the file's row and column. Rows of queries are reordered for RoPE.
  void Expect(const std::function<float(size_t, size_t)>& scale) {
    const auto matrix = Queries();
    ASSERT_TRUE(matrix.ok()) << matrix.status().ToString();
    ASSERT_EQ(matrix->weight.type, WeightType::kBf16);
    const std::string codes = Codes(256);
    for (size_t r = 0; r < 16; ++r) {
      const size_t from = r / 2 + r % 2 * 8;
      for (size_t c = 0; c < 16; ++c) {
        uint16_t bits = 0;
        std::memcpy(&bits, matrix->weight.bytes.data() + (r * 16 + c) * 2, 2);
        const float value = std::bit_cast<float>(uint32_t{bits} << 16);
        const float exact = Fp8Value(static_cast<uint8_t>(codes[from * 16 + c])) * scale(from, c);
        EXPECT_NEAR(value, exact, std::fabs(exact) / 256) << r << "," << c;
      }
    }
  }

  TempDir dir_;
  std::unique_ptr<HfSource> source_;
};

TEST_F(Fp8FolderTest, AScaleAMatrix) {
  Write({{"quant_method", "fp8"}}, "_scale", {}, {0.37F});
  Expect([](size_t, size_t) { return 0.37F; });
}

TEST_F(Fp8FolderTest, AScaleARow) {
  std::vector<float> scales;
  for (int i = 0; i < 16; ++i) scales.push_back(0.1F + 0.013F * static_cast<float>(i));
  Write({{"quant_method", "compressed-tensors"}, {"format", "float-quantized"}}, "_scale", {16, 1},
        scales);
  Expect([&](size_t row, size_t) { return scales[row]; });
}

TEST_F(Fp8FolderTest, AScaleABlock) {
  const std::vector<float> scales = {1, 2, 3, 4, 5, 6};
  Write({{"quant_method", "fp8"}, {"weight_block_size", {6, 10}}}, "_scale_inv", {3, 2}, scales);
  Expect([&](size_t row, size_t col) { return scales[row / 6 * 2 + col / 10]; });
}

TEST_F(Fp8FolderTest, ScalesThatDoNotFitAreRefused) {
  const auto expect = [&](const std::string& words, StatusCode code) {
    const auto matrix = Queries();
    ASSERT_FALSE(matrix.ok()) << words;
    EXPECT_EQ(matrix.status().code(), code);
    EXPECT_NE(matrix.status().message().find(words), std::string::npos)
        << matrix.status().message();
  };
  Write({{"quant_method", "fp8"}}, "", {}, {});
  expect("has no scales", StatusCode::kInvalidArgument);
  Write({{"quant_method", "fp8"}}, "_scale", {15}, std::vector<float>(15));
  expect("do not fit", StatusCode::kInvalidArgument);
  Write({{"quant_method", "fp8"}, {"weight_block_size", {6, 10}}}, "_scale_inv", {2, 3},
        std::vector<float>(6));
  expect("do not fit", StatusCode::kInvalidArgument);
  Write({{"quant_method", "fp8"}, {"weight_block_size", {0, 10}}}, "_scale_inv", {2, 3},
        std::vector<float>(6));
  expect("weight_block_size", StatusCode::kInvalidArgument);
  Write({{"quant_method", "gptq"}}, "_scale", {1}, {1});
  expect("'gptq' are not supported", StatusCode::kUnimplemented);
}

// Two experts of 16 inputs and 6 (gate), 6 (up) outputs; their down matrices are [6, 16].
class Fp8ExpertsTest : public testing::Test {
 protected:
  static constexpr uint32_t kExperts = 2, kInputs = 16, kInner = 6;

  void Write(const nlohmann::json& quantization, const SafetensorsWriter& tensors) {
    nlohmann::json config = {{"model_type", "llama4_text"},
                             {"num_hidden_layers", 1},
                             {"hidden_size", kInputs},
                             {"vocab_size", 7},
                             {"num_attention_heads", 1},
                             {"num_key_value_heads", 1},
                             {"head_dim", 16},
                             {"intermediate_size", kInner},
                             {"intermediate_size_mlp", 8},
                             {"num_local_experts", kExperts},
                             {"max_position_embeddings", 64}};
    config["quantization_config"] = quantization;
    dir_.Write("config.json", config.dump());
    dir_.Write("model.safetensors", tensors.Finish());
  }

  static SafetensorsWriter Begin() {
    SafetensorsWriter writer;
    writer.Add("model.embed_tokens.weight", "BF16", {7, kInputs}, std::string(7 * 16 * 2, '\0'));
    return writer;
  }

  Result<SourceMatrix> Matrix(const char* tensor, uint32_t expert) {
    auto source = HfSource::Open(dir_.path());
    if (!source.ok()) return source.status();
    source_ = std::move(*source);
    const bool down = std::string_view(tensor).find("down") != std::string_view::npos;
    return source_->ExpertMatrix(tensor, expert, kExperts, down ? kInputs : kInner,
                                 down ? kInner : kInputs);
  }

  // value: of an expert's output and input.
  void Expect(const char* tensor, const std::function<float(size_t, size_t, size_t)>& value) {
    for (uint32_t expert = 0; expert < kExperts; ++expert) {
      const auto matrix = Matrix(tensor, expert);
      ASSERT_TRUE(matrix.ok()) << matrix.status().ToString();
      ASSERT_EQ(matrix->weight.type, WeightType::kBf16);
      const WeightSource& w = matrix->weight;
      for (size_t r = 0; r < w.rows; ++r) {
        for (size_t c = 0; c < w.cols; ++c) {
          uint16_t bits = 0;
          std::memcpy(&bits, w.bytes.data() + (r * w.cols + c) * 2, 2);
          const float exact = value(expert, r, c);
          EXPECT_NEAR(std::bit_cast<float>(uint32_t{bits} << 16), exact, std::fabs(exact) / 256)
              << tensor << " of expert " << expert << " at " << r << "," << c;
        }
      }
    }
  }

  // The code of all experts' [inputs, outputs].
  static float Code(size_t experts_inputs, size_t outputs, size_t expert, size_t input,
                    size_t output) {
    const std::string codes = Codes(kExperts * experts_inputs * outputs);
    return Fp8Value(
        static_cast<uint8_t>(codes[(expert * experts_inputs + input) * outputs + output]));
  }

  TempDir dir_;
  std::unique_ptr<HfSource> source_;
};

std::vector<float> Ramp(size_t count) {
  std::vector<float> values;
  for (size_t i = 0; i < count; ++i) values.push_back(0.5F + 0.03F * static_cast<float>(i));
  return values;
}

TEST_F(Fp8ExpertsTest, AScaleAnOutputOfEachExpert) {
  const std::string layer = "model.layers.0.feed_forward.experts.";
  SafetensorsWriter writer = Begin();
  writer.Add(layer + "gate_up_proj", "F8_E4M3", {2, 16, 12}, Codes(2 * 16 * 12));
  writer.Add(layer + "gate_up_proj_scale", "F32", {2, 1, 12}, Floats(Ramp(24)));
  writer.Add(layer + "down_proj", "F8_E4M3", {2, 6, 16}, Codes(2 * 6 * 16));
  writer.Add(layer + "down_proj_scale", "F32", {2, 16, 1}, Floats(Ramp(32)));
  Write({{"quant_method", "fbgemm_fp8"}}, writer);
  Expect("blk.0.ffn_gate_exps.weight",
         [](size_t e, size_t r, size_t c) { return Code(16, 12, e, c, r) * Ramp(24)[e * 12 + r]; });
  Expect("blk.0.ffn_up_exps.weight", [](size_t e, size_t r, size_t c) {
    return Code(16, 12, e, c, 6 + r) * Ramp(24)[e * 12 + 6 + r];
  });
  Expect("blk.0.ffn_down_exps.weight",
         [](size_t e, size_t r, size_t c) { return Code(6, 16, e, c, r) * Ramp(32)[e * 16 + r]; });
}

TEST_F(Fp8ExpertsTest, AScaleAnExpertAndOneForAll) {
  const std::string layer = "model.layers.0.feed_forward.experts.";
  SafetensorsWriter writer = Begin();
  writer.Add(layer + "gate_up_proj", "F8_E4M3", {2, 16, 12}, Codes(2 * 16 * 12));
  writer.Add(layer + "gate_up_proj_scale", "F32", {2, 1, 1}, Floats({0.25F, 3}));
  writer.Add(layer + "down_proj", "F8_E4M3", {2, 6, 16}, Codes(2 * 6 * 16));
  writer.Add(layer + "down_proj_scale", "F32", {}, Floats({0.7F}));
  Write({{"quant_method", "fp8"}}, writer);
  Expect("blk.0.ffn_up_exps.weight", [](size_t e, size_t r, size_t c) {
    return Code(16, 12, e, c, 6 + r) * (e == 0 ? 0.25F : 3);
  });
  Expect("blk.0.ffn_down_exps.weight",
         [](size_t e, size_t r, size_t c) { return Code(6, 16, e, c, r) * 0.7F; });
}

TEST_F(Fp8ExpertsTest, AScaleABlock) {
  const std::string layer = "model.layers.0.feed_forward.experts.";
  SafetensorsWriter writer = Begin();
  writer.Add(layer + "gate_up_proj", "F8_E4M3", {2, 16, 12}, Codes(2 * 16 * 12));
  // Blocks of 3 outputs and 10 inputs: 2 x 4 an expert.
  writer.Add(layer + "gate_up_proj_scale_inv", "F32", {2, 2, 4}, Floats(Ramp(16)));
  Write({{"quant_method", "fp8"}, {"weight_block_size", {3, 10}}}, writer);
  Expect("blk.0.ffn_up_exps.weight", [](size_t e, size_t r, size_t c) {
    return Code(16, 12, e, c, 6 + r) * Ramp(16)[e * 8 + c / 10 * 4 + (6 + r) / 3];
  });
}

TEST_F(Fp8ExpertsTest, AMatrixOfItsOwnForEachExpert) {
  SafetensorsWriter writer = Begin();
  for (const char* const name : {"0.up_proj", "1.up_proj"}) {
    const std::string matrix = "model.layers.0.feed_forward.experts." + std::string(name);
    writer.Add(matrix + ".weight", "F8_E4M3", {6, 16}, Codes(6 * 16));
    writer.Add(matrix + ".weight_scale", "F32", {6, 1}, Floats(Ramp(6)));
  }
  Write({{"quant_method", "compressed-tensors"}, {"format", "float-quantized"}}, writer);
  Expect("blk.0.ffn_up_exps.weight", [](size_t, size_t r, size_t c) {
    return Fp8Value(static_cast<uint8_t>(Codes(96)[r * 16 + c])) * Ramp(6)[r];
  });
}

TEST_F(Fp8ExpertsTest, ScalesThatDoNotFitAreRefused) {
  const std::string layer = "model.layers.0.feed_forward.experts.";
  const auto expect = [&](const std::string& words) {
    const auto matrix = Matrix("blk.0.ffn_up_exps.weight", 0);
    ASSERT_FALSE(matrix.ok()) << words;
    EXPECT_EQ(matrix.status().code(), StatusCode::kInvalidArgument);
    EXPECT_NE(matrix.status().message().find(words), std::string::npos)
        << matrix.status().message();
  };
  SafetensorsWriter none = Begin();
  none.Add(layer + "gate_up_proj", "F8_E4M3", {2, 16, 12}, Codes(2 * 16 * 12));
  Write({{"quant_method", "fp8"}}, none);
  expect("has no scales");
  SafetensorsWriter odd = Begin();
  odd.Add(layer + "gate_up_proj", "F8_E4M3", {2, 16, 12}, Codes(2 * 16 * 12));
  odd.Add(layer + "gate_up_proj_scale", "F32", {12}, Floats(Ramp(12)));
  Write({{"quant_method", "fp8"}}, odd);
  expect("do not fit 2 experts of 12 outputs");
  Write({{"quant_method", "fp8"}, {"weight_block_size", {4, 10}}}, odd);
  expect("do not fit");
}

}  // namespace
}  // namespace corpusd
