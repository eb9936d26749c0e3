// tests/support/coded_tile_builder.h -- writes codes and scales of a tile to their places, bit by
// bit, by the layout's own arithmetic: the slow and obvious way, for tests.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "kernels/cuda/coded_tile.h"

namespace corpusd::cuda {

// codes: [128][Dim] row-major; scales: [128] scale bytes. transposed: V, whose fragments hold dims
// down and tokens across.
template <int Bits, int Dim>
std::vector<uint8_t> BuildCodedTile(const std::vector<uint8_t>& codes,
                                    const std::vector<uint8_t>& scales, bool transposed) {
  using Tile = CodedTile<Bits, Dim>;
  std::vector<uint8_t> tile(Tile::kBytes);
  for (int token = 0; token < kTileTokens; ++token) {
    tile[Tile::ScaleOffset(token)] = scales[token];
    for (int dim = 0; dim < Dim; ++dim) {
      const int down = transposed ? dim : token, across = transposed ? token : dim;
      const int row = down % 16, column = across % 16;
      const int lane = row % 8 * 4 + column % 8 / 2;
      const int reg = row / 8 + 2 * (column / 8), half = column % 2;
      for (int bit = 0; bit < Bits; ++bit) {
        if ((codes[token * Dim + dim] >> bit & 1) == 0) continue;
        const BitPlace place = PlaceOfBit<Bits>(dim / 16, reg, half, bit);
        uint8_t* at = &tile[token / 16 * Tile::kGroupBytes + Tile::WordOffset(place.word, lane)];
        uint32_t word;
        std::memcpy(&word, at, 4);
        word |= 1u << place.bit;
        std::memcpy(at, &word, 4);
      }
    }
  }
  return tile;
}

inline float ScaleOfByte(uint8_t byte) {
  const uint32_t bits = ScaleBits(byte);
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

}  // namespace corpusd::cuda
