// The layout of coded tiles and the split of decode attention, checked on the CPU: the unpacking
// below is the code that the CUDA kernel runs.
#include "kernels/cuda/coded_tile.h"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <vector>

#include "kernels/cuda/decode_plan.h"
#include "tests/support/coded_tile_builder.h"

namespace corpusd::cuda {
namespace {

float HalfValue(uint32_t bits) {  // of a half in [1024, 2048)
  EXPECT_EQ(bits >> 10 & 0x3F, 0x19u);
  return 1024.f + static_cast<float>(bits & 0x3FF);
}

template <int Bits, int Dim>
void CheckEveryBitHasItsPlace() {
  using Tile = CodedTile<Bits, Dim>;
  std::set<int> seen;
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int f = 0; f < Tile::kFragments; ++f) {
      for (int i = 0; i < 8 * Bits; ++i) {
        const BitPlace place = PlaceOfBit<Bits>(f, i / Bits / 2, i / Bits % 2, i % Bits);
        ASSERT_LT(place.word, Tile::kWords);
        ASSERT_LT(place.bit, 32);
        const int offset = Tile::WordOffset(place.word, lane);
        ASSERT_LE(offset + 4, Tile::kGroupBytes);
        EXPECT_TRUE(seen.insert(offset * 8 + place.bit).second);
      }
    }
  }
  EXPECT_EQ(static_cast<int>(seen.size()), Tile::kGroupBytes * 8) << "bits of a group are unused";
  std::set<int> scales;
  for (int token = 0; token < kTileTokens; ++token) scales.insert(Tile::ScaleOffset(token));
  EXPECT_EQ(*scales.begin(), Tile::kCodeBytes);
  EXPECT_EQ(*scales.rbegin(), Tile::kCodeBytes + kTileTokens - 1);
  EXPECT_EQ(scales.size(), static_cast<size_t>(kTileTokens));
}

template <int Bits, int Dim>
void CheckUnpacking(bool transposed) {
  using Tile = CodedTile<Bits, Dim>;
  std::mt19937 random(Bits * 100 + Dim);
  std::vector<uint8_t> codes(kTileTokens * Dim), scales(kTileTokens, 100);
  for (uint8_t& code : codes) code = random() & ((1 << Bits) - 1);
  const std::vector<uint8_t> tile = BuildCodedTile<Bits, Dim>(codes, scales, transposed);
  for (int group = 0; group < kGroups; ++group) {
    for (int lane = 0; lane < kLanes; ++lane) {
      uint32_t words[Tile::kWords];
      for (int w = 0; w < Tile::kWords; ++w) {
        std::memcpy(&words[w], &tile[group * Tile::kGroupBytes + Tile::WordOffset(w, lane)], 4);
      }
      for (int f = 0; f < Tile::kFragments; ++f) {
        uint32_t a[4];
        UnpackFragment<Bits>(words, f, kHalfPair1024, a);
        for (int i = 0; i < 8; ++i) {
          const int row = lane / 4 + i / 2 % 2 * 8, column = lane % 4 * 2 + i % 2 + i / 4 * 8;
          const int token = group * 16 + (transposed ? column : row);
          const int dim = f * 16 + (transposed ? row : column);
          const float step = FragmentStep<Bits>(f) * (row < 8 ? 1.f : RowRatio<Bits>());
          ASSERT_EQ(HalfValue(a[i / 2] >> (16 * (i % 2)) & 0xFFFF),
                    1024.f + step * codes[token * Dim + dim])
              << "group " << group << " lane " << lane << " fragment " << f << " element " << i;
        }
      }
    }
  }
}

template <int Bits>
void CheckWidth() {
  CheckEveryBitHasItsPlace<Bits, 64>();
  CheckEveryBitHasItsPlace<Bits, 128>();
  for (const bool transposed : {false, true}) {
    CheckUnpacking<Bits, 64>(transposed);
    CheckUnpacking<Bits, 128>(transposed);
  }
}

TEST(CodedTile, TwoBits) { CheckWidth<2>(); }
TEST(CodedTile, ThreeBits) { CheckWidth<3>(); }
TEST(CodedTile, FourBits) { CheckWidth<4>(); }
TEST(CodedTile, EightBits) { CheckWidth<8>(); }

TEST(CodedTile, BytesOfAnElementCountScalesAndMeans) {
  EXPECT_EQ((CodedTile<4, 64>::kBytes * 8.0 / (128 * 64)), 4.1875);
  EXPECT_EQ((CodedTile<4, 128>::kBytes * 8.0 / (128 * 128)), 4.125);
  EXPECT_EQ((CodedTile<3, 64>::kBytes * 8.0 / (128 * 64)), 3.1875);
  EXPECT_EQ((CodedTile<2, 128>::kBytes % 64), 0);
  EXPECT_EQ((CodedTile<4, 64>::kBytes), 4288);
}

TEST(CodedTile, ScaleBytesRiseByThirtySecondsOfAnOctave) {
  EXPECT_EQ(ScaleOfByte(0), 1.f / 32);
  EXPECT_EQ(ScaleOfByte(32 * 5), 1.f);
  EXPECT_EQ(ScaleOfByte(32 * 5 + 16), 1.5f);
  EXPECT_EQ(ScaleOfByte(255), 7.875f);
  for (int i = 1; i < 256; ++i) {
    const float ratio =
        ScaleOfByte(static_cast<uint8_t>(i)) / ScaleOfByte(static_cast<uint8_t>(i - 1));
    EXPECT_GT(ratio, 1.015f);
    EXPECT_LT(ratio, 1.032f);
  }
}

TEST(DecodePlan, EveryTileHasOneBlockAndHeadsKnowTheirBlocks) {
  for (const int heads : {1, 3, 8}) {
    for (const int tiles : {1, 2, 79, 1000}) {
      for (const int multiprocessors : {1, 2, 7, 132}) {
        DecodePlan plan{heads, tiles, std::min(multiprocessors, heads * tiles)};
        ASSERT_EQ(plan.Start(0), 0);
        ASSERT_EQ(plan.Start(plan.blocks), plan.items());
        for (int block = 0; block < plan.blocks; ++block) {
          ASSERT_LT(plan.Start(block), plan.Start(block + 1));
          ASSERT_EQ(plan.BlockOf(plan.Start(block)), block);
          ASSERT_EQ(plan.BlockOf(plan.Start(block + 1) - 1), block);
        }
        for (int head = 0; head < heads; ++head) {
          ASSERT_LE(plan.Start(plan.FirstBlock(head)), head * tiles);
          ASSERT_GT(plan.Start(plan.LastBlock(head) + 1), (head + 1) * tiles - 1);
        }
      }
    }
  }
}

}  // namespace
}  // namespace corpusd::cuda
