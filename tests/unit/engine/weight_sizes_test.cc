// What a shape says its weights take, against what files of that shape hold.
#include "engine/model/weight_sizes.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "engine/model/hf_config.h"
#include "tests/support/hashed_checkpoint.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_paths.h"

namespace corpusd {
namespace {

TEST(WeightSizes, AreThoseOfTheFiles) {
  for (const FamilyCase& family_case : ReadFamilyCases(GoldenPath("families.jsonl"))) {
    SCOPED_TRACE(family_case.name);
    const TempDir folder;
    WriteCheckpoint(family_case, folder.path());
    for (const WeightMode mode : {WeightMode::kAuto, WeightMode::kInt8, WeightMode::kInt4}) {
      auto opened = OpenModelSource(folder.path());
      ASSERT_TRUE(opened.ok()) << opened.status().ToString();
      const auto source = WithWeights(*std::move(opened), mode, 1);
      uint64_t elements = 0, bytes = 0, matrices = 0;
      for (const TensorSize& size : source->TensorSizes()) {
        elements += size.elements;
        if (size.matrix) matrices += size.bytes;
      }
      const auto dtype = family_case.record["dtype"].get<std::string>();
      const WeightType stored = dtype == "F32"   ? WeightType::kF32
                                : dtype == "F16" ? WeightType::kF16
                                                 : WeightType::kBf16;
      uint64_t parameters = 0;
      for (const WeightPart& part :
           WeightSizes(source->config(), !source->Has("output.weight"), stored, mode)) {
        parameters += part.parameters;
        EXPECT_LE(part.used, part.parameters);
        if (part.name != "gains and biases") bytes += part.bytes;
      }
      EXPECT_EQ(parameters, elements);
      EXPECT_EQ(bytes, matrices);
    }
  }
}

// Llama 4 Scout's published shape: 107.8 billion parameters, 17 of them at work.
TEST(WeightSizes, OfScout) {
  const HfConfig scout =
      *ReadHfConfig(nlohmann::json::parse(ReadWholeFile(GoldenPath("llama4_scout.json"))), "scout");
  const auto total = [&](WeightMode mode) {
    WeightPart sum;
    for (const WeightPart& part : WeightSizes(scout.model, false, WeightType::kBf16, mode)) {
      sum.parameters += part.parameters;
      sum.used += part.used;
      sum.bytes += part.bytes;
    }
    return sum;
  };
  EXPECT_NEAR(static_cast<double>(total(WeightMode::kAuto).parameters) * 1e-9, 107.8, 0.1);
  EXPECT_NEAR(static_cast<double>(total(WeightMode::kAuto).used) * 1e-9, 16.2, 0.5);
  EXPECT_NEAR(static_cast<double>(total(WeightMode::kAuto).bytes) * 1e-9, 215.5, 0.5);
  EXPECT_LT(total(WeightMode::kInt4).bytes, uint64_t{69} * 1000 * 1000 * 1000);
}

// What it keeps of a token: of the 48 layers the 12 without positions, a quarter of all. The
// chunked ones keep the tail of the last chunk, at a multiple of 8192 nothing.
TEST(LayerParts, ScoutKeepsAQuarter) {
  const HfConfig scout =
      *ReadHfConfig(nlohmann::json::parse(ReadWholeFile(GoldenPath("llama4_scout.json"))), "scout");
  const auto parts = LayerPartsOf(scout.model);
  ASSERT_NE(parts, nullptr);
  ASSERT_EQ(parts->parts.size(), 2U);
  EXPECT_EQ(parts->parts[0].layers, 12U);
  EXPECT_EQ(parts->parts[1].kind, "c8192");
  EXPECT_EQ(parts->parts[1].layers, 36U);
  for (uint32_t i = 0; i < scout.model.layers; ++i) {
    EXPECT_EQ(parts->places[i].part, i % 4 == 3 ? 0U : 1U) << i;
  }
  const auto kib_a_token = [&](uint32_t layers) {
    const KvFormat bf16{
        .layers = layers, .kv_heads = scout.model.kv_heads, .head_dim = scout.model.head_dim};
    return bf16.BlockBytes() / kBlockTokens / 1024;
  };
  EXPECT_EQ(kib_a_token(parts->parts[0].layers), 48U);
  EXPECT_EQ(kib_a_token(scout.model.layers), 192U);
}

}  // namespace
}  // namespace corpusd
