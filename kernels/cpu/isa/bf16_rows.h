// kernels/cpu/isa/bf16_rows.h -- rows of activations in bf16, as tiles take them, and the bf16
// conversions and dot products (vdpbf16ps) that the tiles' other code needs. Calls of few rows are
// prepared for int16_groups.h. Included after that by one translation unit.
#pragma once

namespace corpusd {
namespace {

inline uint32_t PaddedCols(uint32_t cols) {
  return (cols + kQuantBlock - 1) / kQuantBlock * kQuantBlock;
}
// A prepared row: padded inputs as bf16.
inline size_t PreparedStride(uint32_t cols) {
  return (size_t{PaddedCols(cols)} * 2 + 63) / 64 * 64;
}
// Tiles of 16 rows may read (never use) up to 31 rows past the last.
uint64_t Bf16PreparedBytes(uint32_t call_rows, uint32_t cols) noexcept {
  if (call_rows <= kFewRows) return PreparedGroupBytes(call_rows, cols);
  return (uint64_t{call_rows} + 32) * PreparedStride(cols);
}

inline void StoreBf16(uint16_t* p, Lanes v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), (__m256i)_mm512_cvtneps_pbh(v.v));
}
// Pairs (even, odd) as the dot product takes them, rounded.
inline __m512i PairsOf(Lanes even, Lanes odd) {
  const __m512i halves = (__m512i)_mm512_cvtne2ps_pbh(odd.v, even.v);
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                         8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, halves);
}
// The same where both are already exact in bf16: their upper halves.
inline __m512i ExactPairsOf(Lanes even, Lanes odd) {
  return _mm512_or_si512(_mm512_srli_epi32(_mm512_castps_si512(even.v), 16),
                         _mm512_and_si512(_mm512_castps_si512(odd.v),
                                          _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
}
inline Lanes Dot(Lanes sum, __m512i a, __m512i b) {
  return {_mm512_dpbf16_ps(sum.v, (__m512bh)a, (__m512bh)b)};
}
inline __m512i BroadcastBf16Pair(const uint16_t* p) {
  int pair;
  __builtin_memcpy(&pair, p, 4);
  return _mm512_set1_epi32(pair);
}

void Bf16PrepareRows(std::byte* prepared, const float* x, uint32_t x_stride, uint32_t cols,
                     uint32_t call_rows, uint32_t first_row, uint32_t rows) noexcept {
  if (call_rows <= kFewRows) {
    return PrepareGroupRows(prepared, x, x_stride, cols, first_row, rows);
  }
  const size_t stride = PreparedStride(cols);
  const uint32_t padded = PaddedCols(cols);
  for (uint32_t r = first_row; r < first_row + rows; ++r) {
    auto* out = reinterpret_cast<uint16_t*>(prepared + r * stride);
    const float* source = x + size_t{r} * x_stride;
    for (uint32_t i = 0; i < padded; i += kLanes) {
      StoreBf16(out + i, i < cols ? LoadFirst(source + i, cols - i) : Zero());
    }
  }
}

}  // namespace
}  // namespace corpusd
