// kernels/cpu/isa/lanes_avx2.h -- 16 floats in two AVX2 registers: the vector that the shared
// kernel bodies are written over. Included by one translation unit only, before them; all in its
// anonymous namespace.
#pragma once

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

namespace corpusd {
namespace {

// Rows of a tile: 6 x 2 accumulators, 2 weights and one broadcast fill 15 of 16 registers.
constexpr uint32_t kTileRows = 6;

struct Lanes {
  __m256 lo, hi;
};
struct IntLanes {
  __m256i lo, hi;
};

inline Lanes Load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void Store(float* p, Lanes v) {
  _mm256_storeu_ps(p, v.lo);
  _mm256_storeu_ps(p + 8, v.hi);
}
inline Lanes Broadcast(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline Lanes BroadcastFrom(const float* p) {
  const __m256 v = _mm256_broadcast_ss(p);
  return {v, v};
}
inline Lanes Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline Lanes Fma(Lanes a, Lanes b, Lanes c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
inline Lanes Mul(Lanes a, Lanes b) {
  return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
inline Lanes Add(Lanes a, Lanes b) {
  return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
inline Lanes Sub(Lanes a, Lanes b) {
  return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
inline Lanes Div(Lanes a, Lanes b) {
  return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}
inline Lanes Sqrt(Lanes a) { return {_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)}; }
inline Lanes Max(Lanes a, Lanes b) {
  return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}
inline Lanes Min(Lanes a, Lanes b) {
  return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
}
inline Lanes Absolute(Lanes v) {
  const __m256 mask = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  return {_mm256_and_ps(v.lo, mask), _mm256_and_ps(v.hi, mask)};
}
inline Lanes RoundToInt(Lanes a) {
  constexpr int kMode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(a.lo, kMode), _mm256_round_ps(a.hi, kMode)};
}

inline float ReduceAdd(Lanes v) {
  const __m256 s = _mm256_add_ps(v.lo, v.hi);
  __m128 q = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
  q = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
inline float ReduceMax(Lanes v) {
  const __m256 s = _mm256_max_ps(v.lo, v.hi);
  __m128 q = _mm_max_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
  q = _mm_max_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}

// Lanes below count keep v, the others take `other`.
inline Lanes KeepFirst(Lanes v, uint32_t count, Lanes other) {
  const __m256i n = _mm256_set1_epi32(static_cast<int>(count));
  const __m256i first = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i second = _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15);
  return {_mm256_blendv_ps(other.lo, v.lo, _mm256_castsi256_ps(_mm256_cmpgt_epi32(n, first))),
          _mm256_blendv_ps(other.hi, v.hi, _mm256_castsi256_ps(_mm256_cmpgt_epi32(n, second)))};
}
// Lanes where x >= limit keep v, the others become zero.
inline Lanes ZeroBelow(Lanes v, Lanes x, Lanes limit) {
  return {_mm256_and_ps(v.lo, _mm256_cmp_ps(x.lo, limit.lo, _CMP_GE_OQ)),
          _mm256_and_ps(v.hi, _mm256_cmp_ps(x.hi, limit.hi, _CMP_GE_OQ))};
}
// v * 2^n for integral n in [-126, 127].
inline Lanes ScaleByPowerOfTwo(Lanes v, Lanes n) {
  const __m256i bias = _mm256_set1_epi32(127);
  const __m256i lo = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n.lo), bias), 23);
  const __m256i hi = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n.hi), bias), 23);
  return {_mm256_mul_ps(v.lo, _mm256_castsi256_ps(lo)),
          _mm256_mul_ps(v.hi, _mm256_castsi256_ps(hi))};
}

// p * 2^n, n being in the low bits of t (a float to which 1.5 * 2^23 was added).
inline Lanes ScaleByLowBits(Lanes p, Lanes t) {
  const auto one = [](__m256 v, __m256 n) {
    return _mm256_castsi256_ps(
        _mm256_add_epi32(_mm256_castps_si256(v), _mm256_slli_epi32(_mm256_castps_si256(n), 23)));
  };
  return {one(p.lo, t.lo), one(p.hi, t.hi)};
}

// 16 whole numbers.
inline Lanes FloatsOf(const int32_t* p) {
  const auto* v = reinterpret_cast<const __m256i*>(p);
  return {_mm256_cvtepi32_ps(_mm256_loadu_si256(v)), _mm256_cvtepi32_ps(_mm256_loadu_si256(v + 1))};
}
inline IntLanes LoadInt(const void* p) {
  const auto* v = static_cast<const __m256i*>(p);
  return {_mm256_loadu_si256(v), _mm256_loadu_si256(v + 1)};
}
// Bits [kShift, kShift + 4) of each lane as a float.
template <int kShift>
inline Lanes NibbleToFloat(IntLanes v) {
  const __m256i mask = _mm256_set1_epi32(15);
  return {_mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32(v.lo, kShift), mask)),
          _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32(v.hi, kShift), mask))};
}
// Signed byte kByte of each lane as a float.
template <int kByte>
inline Lanes ByteToFloat(IntLanes v) {
  return {_mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(v.lo, 24 - 8 * kByte), 24)),
          _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(v.hi, 24 - 8 * kByte), 24))};
}
inline Lanes LowBf16ToFloat(IntLanes v) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(v.lo, 16)),
          _mm256_castsi256_ps(_mm256_slli_epi32(v.hi, 16))};
}
inline Lanes HighBf16ToFloat(IntLanes v) {
  const __m256i mask = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
  return {_mm256_castsi256_ps(_mm256_and_si256(v.lo, mask)),
          _mm256_castsi256_ps(_mm256_and_si256(v.hi, mask))};
}
inline Lanes LoadHalf(const void* p) {
  const auto* v = static_cast<const __m128i*>(p);
  return {_mm256_cvtph_ps(_mm_loadu_si128(v)), _mm256_cvtph_ps(_mm_loadu_si128(v + 1))};
}
// Both rounded to bf16, ties to even, as pairs. REQUIRES: finite.
inline IntLanes RoundPairsBf16(Lanes even, Lanes odd) {
  const auto rounded = [](__m256 a) {
    const __m256i bits = _mm256_castps_si256(a);
    const __m256i last = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    return _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), last);
  };
  const auto pairs = [&](__m256 a, __m256 b) {
    return _mm256_blend_epi16(_mm256_srli_epi32(rounded(a), 16), rounded(b), 0xaa);
  };
  return {pairs(even.lo, odd.lo), pairs(even.hi, odd.hi)};
}
// Lanes 0 8 1 9 2 10 .. 7 15: the order in which coded tiles hold 16 dims or tokens.
inline Lanes ToSlotOrder(Lanes v) {
  const __m256 a = _mm256_unpacklo_ps(v.lo, v.hi);
  const __m256 b = _mm256_unpackhi_ps(v.lo, v.hi);
  return {_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31)};
}
// Turns 8 pairs (x0, x1) by [cos, sin] pairs: (x0 c - x1 s, x1 c + x0 s).
inline Lanes RotatePairs(Lanes x, Lanes cos_sin) {
  const auto turn = [](__m256 v, __m256 t) {
    const __m256 swapped = _mm256_mul_ps(_mm256_permute_ps(v, 0xb1), _mm256_movehdup_ps(t));
    return _mm256_fmaddsub_ps(v, _mm256_moveldup_ps(t), swapped);
  };
  return {turn(x.lo, cos_sin.lo), turn(x.hi, cos_sin.hi)};
}

}  // namespace
}  // namespace corpusd
