// kernels/cpu/isa/coded_lanes_avx512.h -- what the encoder of coded tiles needs beyond
// lanes_avx512.h: scale bytes, nearest levels, selections. Included after it by one translation
// unit.
#pragma once

#include "kernels/coded_levels.h"
#include "kernels/coded_tile.h"

namespace corpusd {
namespace {

// Dims x chains of FMAs that run side by side: 16 sums, 4 errors, 4 weights.
constexpr uint32_t kFeedDims = 4;
constexpr uint32_t kFeedChains = 4;

inline IntLanes BroadcastInt(int x) { return {_mm512_set1_epi32(x)}; }
inline IntLanes AndInts(IntLanes a, IntLanes b) { return {_mm512_and_si512(a.v, b.v)}; }
inline void StoreInts(void* p, IntLanes a) { _mm512_storeu_si512(p, a.v); }
inline IntLanes OrLeft(IntLanes a, IntLanes b, int shift) {
  return {_mm512_or_si512(a.v, _mm512_sll_epi32(b.v, _mm_cvtsi32_si128(shift)))};
}
inline IntLanes ShiftRightEach(IntLanes a, IntLanes counts) {
  return {_mm512_srlv_epi32(a.v, counts.v)};
}
// Each lane: x where a < b, else y.
inline Lanes WhereLess(Lanes a, Lanes b, Lanes x, Lanes y) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), y.v, x.v)};
}
inline IntLanes WhereLess(Lanes a, Lanes b, IntLanes x, IntLanes y) {
  return {_mm512_mask_blend_epi32(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), y.v, x.v)};
}
// The scale bytes of floats >= 0; rounding: kNearestScale or kScaleAbove.
inline IntLanes ScaleBytesOf(Lanes scale, uint32_t rounding) {
  const __m512i bits =
      _mm512_add_epi32(_mm512_castps_si512(scale.v), _mm512_set1_epi32(static_cast<int>(rounding)));
  const __m512i byte =
      _mm512_add_epi32(_mm512_srli_epi32(bits, kScaleShift), _mm512_set1_epi32(-kScaleByteBias));
  return {_mm512_max_epi32(_mm512_min_epi32(byte, _mm512_set1_epi32(255)), _mm512_setzero_si512())};
}
inline IntLanes AddClamped(IntLanes byte, int offset) {
  const __m512i sum = _mm512_add_epi32(byte.v, _mm512_set1_epi32(offset));
  return {_mm512_max_epi32(_mm512_min_epi32(sum, _mm512_set1_epi32(255)), _mm512_setzero_si512())};
}
inline Lanes ScalesOfBytes(IntLanes byte) {
  return {_mm512_castsi512_ps(_mm512_add_epi32(_mm512_slli_epi32(byte.v, kScaleShift),
                                               _mm512_set1_epi32(static_cast<int>(kScaleBase))))};
}
inline IntLanes RoundedInt(Lanes a) { return {_mm512_cvtps_epi32(a.v)}; }

// The nearest level to u, and its code.
template <uint32_t kBits>
inline Lanes NearestLevel(Lanes u, IntLanes* code) {
  constexpr uint32_t kHalf = 1u << (kBits - 1);
  const __m512i sign_bit = _mm512_set1_epi32(static_cast<int>(0x80000000u));
  const __m512i sign = _mm512_and_si512(_mm512_castps_si512(u.v), sign_bit);
  const __m512 size = _mm512_abs_ps(u.v);
  const __m512i one = _mm512_set1_epi32(1);
  __m512i index = _mm512_setzero_si512();
#pragma GCC unroll 8
  for (uint32_t i = 0; i + 1 < kHalf; ++i) {
    const __mmask16 above =
        _mm512_cmp_ps_mask(size, _mm512_set1_ps(LevelBorder(kBits, i)), _CMP_GT_OQ);
    index = _mm512_mask_add_epi32(index, above, index, one);
  }
  static constexpr PositiveLevels<kBits> kTable;
  const __m512 magnitude = _mm512_permutexvar_ps(index, _mm512_load_ps(kTable.values));
  const __mmask16 negative = _mm512_movepi32_mask(sign);
  const __m512i up = _mm512_add_epi32(index, _mm512_set1_epi32(kHalf));
  code->v = _mm512_mask_sub_epi32(up, negative, _mm512_set1_epi32(kHalf - 1), index);
  return {_mm512_castsi512_ps(_mm512_or_si512(_mm512_castps_si512(magnitude), sign))};
}

// The low byte of each lane, in order.
inline __m128i LowBytes(IntLanes a) { return _mm512_cvtepi32_epi8(a.v); }

}  // namespace
}  // namespace corpusd
