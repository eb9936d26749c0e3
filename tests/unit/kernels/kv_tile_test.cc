#include "kernels/reference/kv_tile.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "tests/unit/kernels/kernel_fixture.h"

namespace corpusd {
namespace {

KvFormat OneHead(KvCodec codec) {
  return {.key_codec = codec, .value_codec = codec, .layers = 1, .kv_heads = 1, .head_dim = 64};
}

TEST(KvTile, ReadsBackWithinTheCodecsPrecision) {
  for (const KvCodec codec : {KvCodec::kBf16, KvCodec::kInt8}) {
    const KvFormat format = OneHead(codec);
    AlignedBytes tile(format.KeyTileBytes(0));
    AlignedBytes value_tile(format.ValueTileBytes(0));
    const std::vector<float> source = RandomFloats(kBlockTokens * 64, 3.0f, 1);
    for (uint32_t t = 0; t < kBlockTokens; ++t) {
      WriteKey(tile.data(), format, t, &source[t * 64], nullptr);
      WriteValue(value_tile.data(), format, t, &source[t * 64]);
    }
    for (uint32_t t = 0; t < kBlockTokens; ++t) {
      float key[64];
      float value[64];
      ReadKey(key, tile.data(), format, t);
      ReadValue(value, value_tile.data(), format, t);
      float largest = 0;
      for (uint32_t i = 0; i < 64; ++i) largest = std::fmax(largest, std::fabs(source[t * 64 + i]));
      for (uint32_t i = 0; i < 64; ++i) {
        const float expected = source[t * 64 + i];
        const double bound =
            codec == KvCodec::kBf16 ? std::fabs(expected) * 0x1p-8 : largest / 127 * 0.5001;
        ASSERT_NEAR(key[i], expected, bound);
        ASSERT_EQ(key[i], value[i]);
      }
    }
  }
}

// The layout that the kernels and stored blocks rely on.
TEST(KvTile, LaysOutPairsAndQuads) {
  const KvFormat format = OneHead(KvCodec::kBf16);
  AlignedBytes tile(format.KeyTileBytes(0));
  AlignedBytes value_tile(format.ValueTileBytes(0));
  std::vector<float> one(64, 0.0f);
  one[5] = 1.0f;
  WriteKey(tile.data(), format, 9, one.data(), nullptr);
  WriteValue(value_tile.data(), format, 9, one.data());
  uint16_t bits;
  std::memcpy(&bits, tile.data() + ((5 / 2 * 128 + 9) * 2 + 1) * 2, 2);
  EXPECT_EQ(bits, 0x3f80);
  std::memcpy(&bits, value_tile.data() + ((9 / 2 * 64 + 5) * 2 + 1) * 2, 2);
  EXPECT_EQ(bits, 0x3f80);
  const KvFormat small = OneHead(KvCodec::kInt8);
  AlignedBytes quads(small.KeyTileBytes(0));
  WriteKey(quads.data(), small, 9, one.data(), nullptr);
  EXPECT_EQ(static_cast<int>(quads.data()[(5 / 4 * 128 + 9) * 4 + 1]), 127);
  float scale;
  std::memcpy(&scale, quads.data() + 128 * 64 + 9 * 4, 4);
  EXPECT_EQ(scale, 1.0f / 127);
}

TEST(KvTile, RotatesKeysByTheirSlot) {
  const TestRope rope(kBlockTokens, 32);
  const KvFormat format = OneHead(KvCodec::kBf16);
  AlignedBytes tile(format.KeyTileBytes(0));
  std::vector<float> unit(64, 0.0f);
  unit[0] = 1.0f;
  WriteKey(tile.data(), format, 2, unit.data(), rope.table());
  float key[64];
  ReadKey(key, tile.data(), format, 2);
  EXPECT_NEAR(key[0], std::cos(2.0), 0x1p-8);
  EXPECT_NEAR(key[1], std::sin(2.0), 0x1p-8);
}

TEST(KvTile, WritesTinyAndHugeTokensFinitely) {
  const KvFormat format = OneHead(KvCodec::kInt8);
  for (const float size : {0.0f, std::numeric_limits<float>::denorm_min(), 1e-31f, 1e38f}) {
    AlignedBytes tile(format.ValueTileBytes(0));
    const std::vector<float> values(64, size);
    WriteValue(tile.data(), format, 0, values.data());
    float value[64];
    ReadValue(value, tile.data(), format, 0);
    EXPECT_NEAR(value[63], size, 1e-30 + size * 1e-5);
  }
}

TEST(Bf16, RoundsToNearestEvenAndKeepsNan) {
  EXPECT_EQ(Bf16FromFloat(1.0f), 0x3f80);
  EXPECT_EQ(Bf16FromFloat(FloatFromBf16(0x3f81) + 0x1p-8f), 0x3f82);  // a tie: up to even
  EXPECT_EQ(Bf16FromFloat(1.0f + 0x1p-8f), 0x3f80);                   // a tie: down to even
  EXPECT_TRUE(std::isnan(FloatFromBf16(Bf16FromFloat(std::nanf("")))));
  EXPECT_TRUE(std::isinf(FloatFromBf16(Bf16FromFloat(3.4e38f))));
}

}  // namespace
}  // namespace corpusd
