// kernels/cpu/isa/lanes_avx512.h -- 16 floats in one AVX-512 register: the vector that the shared
// kernel bodies are written over. Included by one translation unit only, before them; all in its
// anonymous namespace.
#pragma once

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

namespace corpusd {
namespace {

// Rows of a tile: 14 accumulators hide the latency of both FMA units; their factors come from
// memory.
constexpr uint32_t kTileRows = 14;

struct Lanes {
  __m512 v;
};
struct IntLanes {
  __m512i v;
};

inline Lanes Load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void Store(float* p, Lanes a) { _mm512_storeu_ps(p, a.v); }
inline Lanes Broadcast(float x) { return {_mm512_set1_ps(x)}; }
inline Lanes BroadcastFrom(const float* p) { return {_mm512_set1_ps(*p)}; }
inline Lanes Zero() { return {_mm512_setzero_ps()}; }
inline Lanes Fma(Lanes a, Lanes b, Lanes c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline Lanes Mul(Lanes a, Lanes b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Lanes Add(Lanes a, Lanes b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Lanes Sub(Lanes a, Lanes b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Lanes Div(Lanes a, Lanes b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Lanes Sqrt(Lanes a) { return {_mm512_sqrt_ps(a.v)}; }
inline Lanes Max(Lanes a, Lanes b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Lanes Min(Lanes a, Lanes b) { return {_mm512_min_ps(a.v, b.v)}; }
inline Lanes Absolute(Lanes a) { return {_mm512_abs_ps(a.v)}; }
inline Lanes RoundToInt(Lanes a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
inline float ReduceAdd(Lanes a) { return _mm512_reduce_add_ps(a.v); }
inline float ReduceMax(Lanes a) { return _mm512_reduce_max_ps(a.v); }

inline __mmask16 FirstMask(uint32_t count) {
  return static_cast<__mmask16>(count >= 16 ? 0xffffu : (1u << count) - 1u);
}
// Lanes below count keep a, the others take `other`.
inline Lanes KeepFirst(Lanes a, uint32_t count, Lanes other) {
  return {_mm512_mask_mov_ps(other.v, FirstMask(count), a.v)};
}
// Lanes where x >= limit keep a, the others become zero.
inline Lanes ZeroBelow(Lanes a, Lanes x, Lanes limit) {
  return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x.v, limit.v, _CMP_GE_OQ), a.v)};
}
// a * 2^n for integral n in [-126, 127].
inline Lanes ScaleByPowerOfTwo(Lanes a, Lanes n) { return {_mm512_scalef_ps(a.v, n.v)}; }

// p * 2^n, n being in the low bits of t (a float to which 1.5 * 2^23 was added).
inline Lanes ScaleByLowBits(Lanes p, Lanes t) {
  return {_mm512_castsi512_ps(
      _mm512_add_epi32(_mm512_castps_si512(p.v), _mm512_slli_epi32(_mm512_castps_si512(t.v), 23)))};
}

// 16 whole numbers.
inline Lanes FloatsOf(const int32_t* p) { return {_mm512_cvtepi32_ps(_mm512_loadu_si512(p))}; }
inline IntLanes LoadInt(const void* p) { return {_mm512_loadu_si512(p)}; }
// Bits [kShift, kShift + 4) of each lane as a float.
template <int kShift>
inline Lanes NibbleToFloat(IntLanes a) {
  return {
      _mm512_cvtepi32_ps(_mm512_and_si512(_mm512_srli_epi32(a.v, kShift), _mm512_set1_epi32(15)))};
}
// Signed byte kByte of each lane as a float.
template <int kByte>
inline Lanes ByteToFloat(IntLanes a) {
  return {_mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(a.v, 24 - 8 * kByte), 24))};
}
inline Lanes LowBf16ToFloat(IntLanes a) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(a.v, 16))};
}
inline Lanes HighBf16ToFloat(IntLanes a) {
  return {
      _mm512_castsi512_ps(_mm512_and_si512(a.v, _mm512_set1_epi32(static_cast<int>(0xffff0000u))))};
}
inline Lanes LoadHalf(const void* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)))};
}
// Both rounded to bf16, ties to even, as pairs. REQUIRES: finite.
inline IntLanes RoundPairsBf16(Lanes even, Lanes odd) {
  const auto rounded = [](Lanes a) {
    const __m512i bits = _mm512_castps_si512(a.v);
    const __m512i last = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    return _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), last);
  };
  return {_mm512_mask_blend_epi16(0xaaaaaaaau, _mm512_srli_epi32(rounded(even), 16), rounded(odd))};
}
// Lanes 0 8 1 9 2 10 .. 7 15: the order in which coded tiles hold 16 dims or tokens.
inline Lanes ToSlotOrder(Lanes a) {
  const __m512i order = _mm512_setr_epi32(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15);
  return {_mm512_permutexvar_ps(order, a.v)};
}
// Turns 8 pairs (x0, x1) by [cos, sin] pairs: (x0 c - x1 s, x1 c + x0 s).
inline Lanes RotatePairs(Lanes x, Lanes cos_sin) {
  const __m512 swapped = _mm512_mul_ps(_mm512_permute_ps(x.v, 0xb1), _mm512_movehdup_ps(cos_sin.v));
  return {_mm512_fmaddsub_ps(x.v, _mm512_moveldup_ps(cos_sin.v), swapped)};
}

}  // namespace
}  // namespace corpusd
