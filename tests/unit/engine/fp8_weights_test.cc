#include "engine/model/fp8_weights.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
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

}  // namespace
}  // namespace corpusd
