// kernels/cpu/isa/coded_lanes_avx2.h -- what the encoder of coded tiles needs beyond lanes_avx2.h:
// scale bytes, nearest levels, selections. Included after it by one translation unit.
#pragma once

#include "kernels/coded_levels.h"
#include "kernels/coded_tile.h"

namespace corpusd {
namespace {

// Dims x chains of FMAs that run side by side: 8 sums, 4 errors, 2 weights in 16 registers.
constexpr uint32_t kFeedDims = 2;
constexpr uint32_t kFeedChains = 2;

inline IntLanes BroadcastInt(int x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
inline IntLanes AndInts(IntLanes a, IntLanes b) {
  return {_mm256_and_si256(a.lo, b.lo), _mm256_and_si256(a.hi, b.hi)};
}
inline void StoreInts(void* p, IntLanes a) {
  auto* target = static_cast<__m256i*>(p);
  _mm256_storeu_si256(target, a.lo);
  _mm256_storeu_si256(target + 1, a.hi);
}
inline IntLanes ShiftRightEach(IntLanes a, IntLanes counts) {
  return {_mm256_srlv_epi32(a.lo, counts.lo), _mm256_srlv_epi32(a.hi, counts.hi)};
}
// Each lane: x where a < b, else y.
inline Lanes WhereLess(Lanes a, Lanes b, Lanes x, Lanes y) {
  return {_mm256_blendv_ps(y.lo, x.lo, _mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ)),
          _mm256_blendv_ps(y.hi, x.hi, _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ))};
}
inline IntLanes WhereLess(Lanes a, Lanes b, IntLanes x, IntLanes y) {
  const Lanes picked = WhereLess(a, b, Lanes{_mm256_castsi256_ps(x.lo), _mm256_castsi256_ps(x.hi)},
                                 Lanes{_mm256_castsi256_ps(y.lo), _mm256_castsi256_ps(y.hi)});
  return {_mm256_castps_si256(picked.lo), _mm256_castps_si256(picked.hi)};
}
inline IntLanes AddClamped(IntLanes byte, int offset) {
  const auto one = [offset](__m256i a) {
    const __m256i sum = _mm256_add_epi32(a, _mm256_set1_epi32(offset));
    return _mm256_max_epi32(_mm256_min_epi32(sum, _mm256_set1_epi32(255)), _mm256_setzero_si256());
  };
  return {one(byte.lo), one(byte.hi)};
}
// The scale bytes of floats >= 0; rounding: kNearestScale or kScaleAbove.
inline IntLanes ScaleBytesOf(Lanes scale, uint32_t rounding) {
  const auto one = [rounding](__m256 a) {
    return _mm256_srli_epi32(
        _mm256_add_epi32(_mm256_castps_si256(a), _mm256_set1_epi32(static_cast<int>(rounding))),
        kScaleShift);
  };
  return AddClamped({one(scale.lo), one(scale.hi)}, -kScaleByteBias);
}
inline Lanes ScalesOfBytes(IntLanes byte) {
  const auto one = [](__m256i a) {
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_slli_epi32(a, kScaleShift),
                                                _mm256_set1_epi32(static_cast<int>(kScaleBase))));
  };
  return {one(byte.lo), one(byte.hi)};
}
inline IntLanes RoundedInt(Lanes a) { return {_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi)}; }

template <uint32_t kBits>
inline __m256 NearestOfEight(__m256 u, __m256i* code) {
  constexpr uint32_t kHalf = 1u << (kBits - 1);
  const __m256i sign_bit = _mm256_set1_epi32(static_cast<int>(0x80000000u));
  const __m256i sign = _mm256_and_si256(_mm256_castps_si256(u), sign_bit);
  const __m256 size = _mm256_andnot_ps(_mm256_castsi256_ps(sign_bit), u);
  __m256i index = _mm256_setzero_si256();
#pragma GCC unroll 8
  for (uint32_t i = 0; i + 1 < kHalf; ++i) {
    const __m256 above = _mm256_cmp_ps(size, _mm256_set1_ps(LevelBorder(kBits, i)), _CMP_GT_OQ);
    index = _mm256_sub_epi32(index, _mm256_castps_si256(above));
  }
  static constexpr PositiveLevels<kBits> kTable;
  const __m256 magnitude = _mm256_permutevar8x32_ps(_mm256_load_ps(kTable.values), index);
  const __m256i up = _mm256_add_epi32(index, _mm256_set1_epi32(kHalf));
  const __m256i down = _mm256_sub_epi32(_mm256_set1_epi32(kHalf - 1), index);
  *code =
      _mm256_castps_si256(_mm256_blendv_ps(_mm256_castsi256_ps(up), _mm256_castsi256_ps(down), u));
  return _mm256_or_ps(magnitude, _mm256_castsi256_ps(sign));
}
// The nearest level to u, and a mark of it in the low byte: here the code itself.
template <uint32_t kBits>
inline Lanes NearestLevel(Lanes u, IntLanes* mark) {
  Lanes level;
  level.lo = NearestOfEight<kBits>(u.lo, &mark->lo);
  level.hi = NearestOfEight<kBits>(u.hi, &mark->hi);
  return level;
}
// packed | the low byte of `mark` in byte kByte.
template <int kByte>
inline IntLanes PutMark(IntLanes packed, IntLanes mark) {
  return {_mm256_or_si256(packed.lo, _mm256_slli_epi32(mark.lo, 8 * kByte)),
          _mm256_or_si256(packed.hi, _mm256_slli_epi32(mark.hi, 8 * kByte))};
}
// The codes of marks.
template <uint32_t kBits>
inline IntLanes CodesOfMarks(IntLanes marks) {
  return marks;
}

// rows[r] lane c <-> rows[c] lane r, 8 x 8.
inline void TransposeEight(__m256 (&rows)[8]) {
  __m256 a[8];
  __m256 b[8];
#pragma GCC unroll 4
  for (uint32_t i = 0; i < 8; i += 2) {
    a[i] = _mm256_unpacklo_ps(rows[i], rows[i + 1]);
    a[i + 1] = _mm256_unpackhi_ps(rows[i], rows[i + 1]);
  }
#pragma GCC unroll 2
  for (uint32_t i = 0; i < 8; i += 4) {
    b[i] = _mm256_shuffle_ps(a[i], a[i + 2], 0x44);
    b[i + 1] = _mm256_shuffle_ps(a[i], a[i + 2], 0xee);
    b[i + 2] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0x44);
    b[i + 3] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0xee);
  }
#pragma GCC unroll 4
  for (uint32_t k = 0; k < 4; ++k) {
    rows[k] = _mm256_permute2f128_ps(b[k], b[4 + k], 0x20);
    rows[4 + k] = _mm256_permute2f128_ps(b[k], b[4 + k], 0x31);
  }
}
// The same, 16 x 16.
inline void TransposeLanes(Lanes (&rows)[16]) {
  __m256 squares[4][8];
  for (uint32_t i = 0; i < 8; ++i) {
    squares[0][i] = rows[i].lo;
    squares[1][i] = rows[8 + i].lo;
    squares[2][i] = rows[i].hi;
    squares[3][i] = rows[8 + i].hi;
  }
  for (auto& square : squares) TransposeEight(square);
  for (uint32_t i = 0; i < 8; ++i) {
    rows[i] = {squares[0][i], squares[1][i]};
    rows[8 + i] = {squares[2][i], squares[3][i]};
  }
}

// The low byte of each lane, in order. REQUIRES: lanes below 256.
inline __m128i LowBytes(IntLanes a) {
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32(a.lo, a.hi), 0xd8);
  return _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}

}  // namespace
}  // namespace corpusd
