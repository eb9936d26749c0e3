// kernels/cpu/isa/int16_tile.h -- the inner product of the int16 kernels: some rows of int16
// against one or more panels [pair][16 outputs][2], sums in int32. Integer sums are exact, so no
// order matters. Included after an int16_lanes_*.h by one translation unit; all in its anonymous
// namespace.
#pragma once

namespace corpusd {
namespace {

constexpr uint32_t kPairElements = 2 * kLanes;  // of a panel, per pair of inputs

// dots[r][p] = sum over pairs of a[r] . w[p]
template <uint32_t kRows, uint32_t kPanels>
inline __attribute__((always_inline)) void DotTile(const int16_t* a, size_t a_stride,
                                                   const int16_t* w, size_t panel_stride,
                                                   uint32_t pairs,
                                                   IntLanes (&dots)[kRows][kPanels]) {
#pragma GCC unroll 16
  for (uint32_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (uint32_t p = 0; p < kPanels; ++p) dots[r][p] = IntZero();
  }
#pragma GCC unroll 4
  for (uint32_t j = 0; j < pairs; ++j) {
    IntLanes v[kPanels];
#pragma GCC unroll 2
    for (uint32_t p = 0; p < kPanels; ++p) {
      v[p] = LoadInt(w + p * panel_stride + size_t{j} * kPairElements);
    }
#pragma GCC unroll 16
    for (uint32_t r = 0; r < kRows; ++r) {
      const IntLanes pair = BroadcastPair(a + r * a_stride + 2 * j);
#pragma GCC unroll 2
      for (uint32_t p = 0; p < kPanels; ++p) dots[r][p] = DotPairs(dots[r][p], pair, v[p]);
    }
  }
}

// Calls body.template Run<rows, panels>(first row) over `rows` rows in tiles.
template <uint32_t kRows, uint32_t kPanels, typename Body>
inline void TailRows(uint32_t rows, uint32_t first, const Body& body) {
  if constexpr (kRows > 0) {
    if (rows == kRows) return body.template Run<kRows, kPanels>(first);
    TailRows<kRows - 1, kPanels>(rows, first, body);
  }
}
template <uint32_t kPanels, typename Body>
inline void ForEachRowTile(uint32_t rows, const Body& body) {
  uint32_t r = 0;
  for (; r + kInt16TileRows <= rows; r += kInt16TileRows) {
    body.template Run<kInt16TileRows, kPanels>(r);
  }
  TailRows<kInt16TileRows - 1, kPanels>(rows - r, r, body);
}

}  // namespace
}  // namespace corpusd
