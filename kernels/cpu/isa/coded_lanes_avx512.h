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

// The nearest level by looking up: the line of magnitudes is cut into cells of which each has at
// most one border between levels, so that one comparison is left.
template <uint32_t kBits>
struct LevelCells {
  static constexpr float kCellsPerUnit = 0.126f;
  static constexpr float kLargest = 120.0f;  // magnitudes beyond are of its cell, the last one
  alignas(64) float border[16];
  alignas(64) float magnitude[32];  // by cell; beyond the cell's border, 16 more
  alignas(64) int32_t index[32];    // the same of the positive levels' indices
  static constexpr uint32_t CellOf(float size) {
    return static_cast<uint32_t>(size * kCellsPerUnit + 0.5f);
  }
  constexpr LevelCells() : border(), magnitude(), index() {
    for (uint32_t cell = 0; cell < 16; ++cell) {
      uint32_t below = 0;
      uint32_t inside = 0;
      border[cell] = 1e30f;
      for (uint32_t i = 0; i + 1 < 1u << (kBits - 1); ++i) {
        const uint32_t of_border = CellOf(LevelBorder(kBits, i));
        below += of_border < cell ? 1 : 0;
        if (of_border == cell) {
          border[cell] = LevelBorder(kBits, i);
          ++inside;
        }
      }
      for (uint32_t above = 0; above < 2; ++above) {
        const uint32_t i = below + (above < inside ? above : inside);
        index[cell + 16 * above] = static_cast<int32_t>(i);
        magnitude[cell + 16 * above] = PositiveLevel(kBits, i);
      }
    }
  }
};

// What a coordinate was coded as, in the low byte: its place in LevelCells, 32 if it is negative.
constexpr int kNegativeMark = 32;
template <uint32_t kBits>
inline Lanes NearestLevel(Lanes u, IntLanes* mark) {
  static constexpr LevelCells<kBits> kCells;
  const __m512i magic = _mm512_castps_si512(_mm512_set1_ps(12582912.0f));  // 1.5 * 2^23
  // The smaller of both magnitudes; the last cell has no border.
  static_assert(LevelCells<kBits>::CellOf(kCells.kLargest) >
                LevelCells<kBits>::CellOf(LevelBorder(kBits, (1u << (kBits - 1)) - 2)));
  const __m512 bounded = _mm512_range_ps(u.v, _mm512_set1_ps(kCells.kLargest), 0xa);
  __m512i place = _mm512_castps_si512(
      _mm512_fmadd_ps(bounded, _mm512_set1_ps(kCells.kCellsPerUnit), _mm512_castsi512_ps(magic)));
  const __m512 border = _mm512_permutexvar_ps(place, _mm512_load_ps(kCells.border));
  const __mmask16 above = _mm512_cmp_ps_mask(bounded, border, _CMP_GT_OQ);
  place = _mm512_mask_or_epi32(place, above, place, _mm512_set1_epi32(16));
  const __m512i magnitude = _mm512_castps_si512(_mm512_permutex2var_ps(
      _mm512_load_ps(kCells.magnitude), place, _mm512_load_ps(kCells.magnitude + 16)));
  const __m512i bits = _mm512_castps_si512(u.v);
  // place | bits >> 26 & kNegativeMark; magnitude | bits & the sign.
  mark->v = _mm512_ternarylogic_epi32(place, _mm512_srli_epi32(bits, 26),
                                      _mm512_set1_epi32(kNegativeMark), 0xf8);
  return {_mm512_castsi512_ps(_mm512_ternarylogic_epi32(
      magnitude, bits, _mm512_set1_epi32(static_cast<int>(0x80000000u)), 0xf8))};
}
// packed | the low byte of `mark` in byte kByte.
template <int kByte>
inline IntLanes PutMark(IntLanes packed, IntLanes mark) {
  return {_mm512_ternarylogic_epi32(packed.v, _mm512_slli_epi32(mark.v, 8 * kByte),
                                    _mm512_set1_epi32(static_cast<int>(0xffu << (8 * kByte))),
                                    0xf8)};
}
// The codes of marks.
template <uint32_t kBits>
inline IntLanes CodesOfMarks(IntLanes marks) {
  static constexpr LevelCells<kBits> kCells;
  constexpr int kHalf = 1 << (kBits - 1);
  const __m512i index = _mm512_permutex2var_epi32(_mm512_load_si512(kCells.index), marks.v,
                                                  _mm512_load_si512(kCells.index + 16));
  const __mmask16 negative = _mm512_test_epi32_mask(marks.v, _mm512_set1_epi32(kNegativeMark));
  const __m512i up = _mm512_add_epi32(index, _mm512_set1_epi32(kHalf));
  return {_mm512_mask_sub_epi32(up, negative, _mm512_set1_epi32(kHalf - 1), index)};
}

// rows[r] lane c <-> rows[c] lane r.
inline void TransposeLanes(Lanes (&rows)[16]) {
  __m512 a[16];
  __m512 b[16];
#pragma GCC unroll 8
  for (uint32_t i = 0; i < 8; ++i) {
    a[2 * i] = _mm512_unpacklo_ps(rows[2 * i].v, rows[2 * i + 1].v);
    a[2 * i + 1] = _mm512_unpackhi_ps(rows[2 * i].v, rows[2 * i + 1].v);
  }
  const auto low = [](__m512 x, __m512 y) {
    return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(x), _mm512_castps_pd(y)));
  };
  const auto high = [](__m512 x, __m512 y) {
    return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(x), _mm512_castps_pd(y)));
  };
#pragma GCC unroll 4
  for (uint32_t i = 0; i < 16; i += 4) {  // b[i + k]: column k of each quarter, rows i .. i + 3
    b[i] = low(a[i], a[i + 2]);
    b[i + 1] = high(a[i], a[i + 2]);
    b[i + 2] = low(a[i + 1], a[i + 3]);
    b[i + 3] = high(a[i + 1], a[i + 3]);
  }
#pragma GCC unroll 4
  for (uint32_t k = 0; k < 4; ++k) {
    const __m512 even0 = _mm512_shuffle_f32x4(b[k], b[4 + k], 0x88);  // quarters 0, 2
    const __m512 odd0 = _mm512_shuffle_f32x4(b[k], b[4 + k], 0xdd);   // 1, 3
    const __m512 even1 = _mm512_shuffle_f32x4(b[8 + k], b[12 + k], 0x88);
    const __m512 odd1 = _mm512_shuffle_f32x4(b[8 + k], b[12 + k], 0xdd);
    rows[k].v = _mm512_shuffle_f32x4(even0, even1, 0x88);
    rows[4 + k].v = _mm512_shuffle_f32x4(odd0, odd1, 0x88);
    rows[8 + k].v = _mm512_shuffle_f32x4(even0, even1, 0xdd);
    rows[12 + k].v = _mm512_shuffle_f32x4(odd0, odd1, 0xdd);
  }
}

// The low byte of each lane, in order.
inline __m128i LowBytes(IntLanes a) { return _mm512_cvtepi32_epi8(a.v); }

}  // namespace
}  // namespace corpusd
