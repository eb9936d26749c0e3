#include "kernels/cpu/packed_weight.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/reference/dequantize.h"
#include "tests/unit/kernels/kernel_fixture.h"

namespace corpusd {
namespace {

TEST(PackedWeight, UnpacksWhatWasPacked) {
  for (const WeightType type :
       {WeightType::kF32, WeightType::kF16, WeightType::kBf16, WeightType::kQ4_0, WeightType::kQ4_1,
        WeightType::kQ5_0, WeightType::kQ5_1, WeightType::kQ8_0, WeightType::kQ4_K,
        WeightType::kQ5_K, WeightType::kQ6_K}) {
    const RandomWeight weight(type, 21, 512, 3);
    const bool rounded = weight.packed.kind == PackedKind::kBf16 && type != WeightType::kBf16;
    std::vector<float> row(512);
    for (uint32_t r = 0; r < 21; ++r) {
      UnpackRow(row.data(), weight.packed, r);
      for (uint32_t k = 0; k < 512; ++k) {
        const float expected = weight.values[r * 512 + k];
        // Besides bf16's rounding only the last bit of d * q + m may differ. Q4_K's d and m are
        // rounded to float16; 15 * d and m are at most 15 * 63 * 0.02 here.
        const double scales = type == WeightType::kQ4_K ? 2 * 15 * 63 * 0.02 * 0x1p-11 : 0;
        const double bound = std::fabs(expected) * (rounded ? 0x1p-8 : 0x1p-22) + scales + 1e-7;
        ASSERT_NEAR(row[k], expected, bound) << "type " << static_cast<int>(type);
      }
    }
  }
}

TEST(PackedWeight, KeepsTheSizeOfTheStoredBlocks) {
  EXPECT_EQ(PackedPanelBytes(PackedKind::kQ4, 576), WeightRowBytes(WeightType::kQ4_1, 576) * 16);
  EXPECT_EQ(PackedPanelBytes(PackedKind::kQ8, 576), WeightRowBytes(WeightType::kQ8_0, 576) * 16);
  for (const PackedKind kind :
       {PackedKind::kQ4, PackedKind::kQ8, PackedKind::kBf16, PackedKind::kF32}) {
    EXPECT_EQ(PackedPanelBytes(kind, 96) % 64, 0u);
  }
}

}  // namespace
}  // namespace corpusd
