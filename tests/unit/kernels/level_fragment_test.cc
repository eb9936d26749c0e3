// The unpacking of levels that the CUDA kernels run, checked on the CPU.
#include "kernels/cuda/level_fragment.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

#include "tests/support/coded_tile_builder.h"

namespace corpusd::cuda {
namespace {

// 1152 + level as a half.
int LevelOfHalf(uint32_t half) {
  EXPECT_EQ(half >> 8, 0x64u);
  return static_cast<int>(half & 0xFF) - 128;
}

template <int Bits, int Dim>
void CheckLevels(bool transposed) {
  using Tile = CodedTile<Bits, Dim>;
  std::mt19937 random(Bits * 100 + Dim);
  std::vector<uint8_t> codes(kTileTokens * Dim), scales(kTileTokens, 100);
  for (uint8_t& code : codes) code = random() & ((1 << Bits) - 1);
  if (Bits == 8) {
    for (uint8_t& code : codes) code = code == 0 ? 1 : code;  // levels are -127 .. 127
  }
  const std::vector<uint8_t> tile = BuildCodedTile<Bits, Dim>(codes, scales, transposed);
  for (int i = 0; i < kGroups * kGroupLanes * Tile::kFragments; ++i) {
    const int f = i % Tile::kFragments, lane = i / Tile::kFragments % kGroupLanes;
    const int group = i / Tile::kFragments / kGroupLanes;
    uint32_t words[Tile::kWords];
    for (int w = 0; w < Tile::kWords; ++w) {
      std::memcpy(&words[w], &tile[group * Tile::kGroupBytes + Tile::WordOffset(w, lane)], 4);
    }
    uint32_t a[4];
    UnpackLevels<Bits>(words, f, a);
    for (int e = 0; e < 8; ++e) {
      const int r = e / 2, row = lane / 4 + 8 * (r & 1);
      const int column = 2 * (lane % 4) + e % 2 + 8 * (r >> 1);
      const int token = 16 * group + (transposed ? column : row);
      const int dim = 16 * f + (transposed ? row : column);
      ASSERT_EQ(LevelOfHalf(a[r] >> 16 * (e % 2) & 0xFFFF),
                LevelOfCode(Bits, codes[token * Dim + dim]))
          << Bits << " bits, token " << token << ", dim " << dim;
    }
  }
}

TEST(LevelFragment, EveryWidthGivesItsLevels) {
  for (const bool transposed : {false, true}) {
    CheckLevels<2, 64>(transposed);
    CheckLevels<2, 128>(transposed);
    CheckLevels<3, 64>(transposed);
    CheckLevels<3, 128>(transposed);
    CheckLevels<4, 64>(transposed);
    CheckLevels<4, 128>(transposed);
    CheckLevels<8, 64>(transposed);
    CheckLevels<8, 128>(transposed);
  }
}

}  // namespace
}  // namespace corpusd::cuda
