// The unpacking of levels that the CUDA kernels run, checked on the CPU.
#include "kernels/cuda/level_fragment.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

#include "kernels/cuda/level_bytes.h"
#include "tests/support/coded_tile_builder.h"

namespace corpusd::cuda {
namespace {

// 1152 + level as a half.
int LevelOfHalf(uint32_t half) {
  EXPECT_EQ(half >> 8, 0x64u);
  return static_cast<int>(half & 0xFF) - 128;
}

// A tile of random codes and the words of each of its lanes.
template <int Bits, int Dim>
class RandomTile {
 public:
  using Tile = CodedTile<Bits, Dim>;
  explicit RandomTile(bool transposed) : codes_(kTileTokens * Dim) {
    std::mt19937 random(Bits * 100 + Dim);
    // Levels of 8 bits are -127 .. 127.
    for (uint8_t& code : codes_) {
      code = random() & ((1 << Bits) - 1);
      if (Bits == 8 && code == 0) code = 1;
    }
    tile_ = BuildCodedTile<Bits, Dim>(codes_, std::vector<uint8_t>(kTileTokens, 100), transposed);
  }
  void Words(int group, int lane, uint32_t (&words)[Tile::kWords]) const {
    for (int w = 0; w < Tile::kWords; ++w) {
      std::memcpy(&words[w], &tile_[group * Tile::kGroupBytes + Tile::WordOffset(w, lane)], 4);
    }
  }
  int Level(int token, int dim) const { return LevelOfCode(Bits, codes_[token * Dim + dim]); }

 private:
  std::vector<uint8_t> codes_, tile_;
};

template <int Bits, int Dim>
void CheckLevels(bool transposed) {
  using Tile = CodedTile<Bits, Dim>;
  const RandomTile<Bits, Dim> tile(transposed);
  for (int i = 0; i < kGroups * kGroupLanes * Tile::kFragments; ++i) {
    const int f = i % Tile::kFragments, lane = i / Tile::kFragments % kGroupLanes;
    const int group = i / Tile::kFragments / kGroupLanes;
    uint32_t words[Tile::kWords];
    tile.Words(group, lane, words);
    uint32_t a[4];
    UnpackLevels<Bits>(words, f, a);
    for (int e = 0; e < 8; ++e) {
      const int r = e / 2, row = lane / 4 + 8 * (r & 1);
      const int column = 2 * (lane % 4) + e % 2 + 8 * (r >> 1);
      const int token = 16 * group + (transposed ? column : row);
      const int dim = 16 * f + (transposed ? row : column);
      ASSERT_EQ(LevelOfHalf(a[r] >> 16 * (e % 2) & 0xFFFF), tile.Level(token, dim))
          << Bits << " bits, token " << token << ", dim " << dim;
    }
  }
}

// Keys as bytes for the integer product, values as halves of every other column.
template <int Bits, int Dim>
void CheckPairs() {
  using Tile = CodedTile<Bits, Dim>;
  const RandomTile<Bits, Dim> keys(false), values(true);
  const LevelTable<Bits> table = MakeLevelTable<Bits>();
  for (int i = 0; i < kGroups * kGroupLanes * Tile::kFragments / 2; ++i) {
    const int pair = i % (Tile::kFragments / 2), lane = i / (Tile::kFragments / 2) % kGroupLanes;
    const int group = i / (Tile::kFragments / 2) / kGroupLanes, g = lane / 4, t = lane % 4;
    uint32_t words[Tile::kWords], a[4], b[2][4];
    keys.Words(group, lane, words);
    KeyBytes<Bits>(table, words, pair, a);
    values.Words(group, lane, words);
    ValueHalves<Bits>(table, words, pair, b);
    for (int e = 0; e < 16; ++e) {
      const int r = e / 4, byte = e % 4, row = g + 8 * (r & 1);
      ASSERT_EQ(static_cast<int>(a[r] >> 8 * byte & 0xFF) - 128,
                keys.Level(16 * group + row, 32 * pair + 2 * t + KeyColumn(Bits, r / 2, byte)))
          << Bits << " bits, register " << r << ", byte " << byte;
      const int f = e / 8, half = e % 2, s = e / 2 % 4;
      ASSERT_EQ(
          LevelOfHalf(b[f][s] >> 16 * half & 0xFFFF),
          values.Level(16 * group + 2 * t + s / 2 + 8 * half, 32 * pair + 16 * f + g + 8 * (s & 1)))
          << Bits << " bits, register " << s << ", half " << half;
    }
  }
}

TEST(LevelBytes, EveryWidthGivesItsLevels) {
  CheckPairs<2, 64>();
  CheckPairs<2, 128>();
  CheckPairs<3, 64>();
  CheckPairs<3, 128>();
  CheckPairs<4, 64>();
  CheckPairs<4, 128>();
  CheckPairs<8, 64>();
  CheckPairs<8, 128>();
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
