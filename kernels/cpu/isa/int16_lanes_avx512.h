// kernels/cpu/isa/int16_lanes_avx512.h -- what the int16 kernel bodies need beyond lanes_avx512.h:
// pairs of int16 in 32-bit lanes, their dot products (AVX512_VNNI), conversions. Included after it
// by one translation unit only.
#pragma once

namespace corpusd {
namespace {

// 12 x 2 sums hide the latency of both units; 2 weights and a broadcast: 27 of 32 registers.
constexpr uint32_t kInt16TileRows = 12;
constexpr uint32_t kInt16TilePanels = 2;
constexpr uint32_t kInt16DirectRows = 8;  // rows that share one unpacking of the codes

// Each 32-bit lane: sum + a0 * w0 + a1 * w1, modulo 2^32.
inline IntLanes DotPairs(IntLanes sum, IntLanes a, IntLanes w) {
  return {_mm512_dpwssd_epi32(sum.v, a.v, w.v)};
}
inline IntLanes AddInt(IntLanes a, IntLanes b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline IntLanes BroadcastPair(const int16_t* p) {
  int pair;
  __builtin_memcpy(&pair, p, 4);
  return {_mm512_set1_epi32(pair)};
}
inline Lanes ToFloat(IntLanes a) { return {_mm512_cvtepi32_ps(a.v)}; }
inline void StoreInt(void* p, IntLanes a) { _mm512_storeu_si512(p, a.v); }
// The nibbles at bits kShift and 16 + kShift of each lane, as a pair.
template <int kShift>
inline IntLanes NibblePairs(IntLanes a) {
  return {_mm512_and_si512(_mm512_srli_epi32(a.v, kShift), _mm512_set1_epi32(0x000f000f))};
}
// The same times 2^11.
template <int kShift>
inline IntLanes HighNibblePairs(IntLanes a) {
  const __m512i mask = _mm512_set1_epi32(0x78007800);
  if constexpr (kShift <= 11) return {_mm512_and_si512(_mm512_slli_epi32(a.v, 11 - kShift), mask)};
  return {_mm512_and_si512(_mm512_srli_epi32(a.v, kShift - 11), mask)};
}
// Signed bytes kFirst and kFirst + 1 of each lane times 2^8, as a pair.
template <int kFirst>
inline IntLanes HighBytePairs(IntLanes a) {
  constexpr char kA = kFirst, kB = kFirst + 1;
  const __m128i places = _mm_setr_epi8(-1, kA, -1, kB, -1, kA + 4, -1, kB + 4, -1, kA + 8, -1,
                                       kB + 8, -1, kA + 12, -1, kB + 12);
  return {_mm512_shuffle_epi8(a.v, _mm512_broadcast_i32x4(places))};
}
template <int kFirst>
inline IntLanes BytePairs(IntLanes a) {
  return {_mm512_srai_epi16(HighBytePairs<kFirst>(a).v, 8)};
}
// Each int16: (a * b + 2^14) / 2^15, rounded down, plus c.
inline IntLanes MulAddHigh(IntLanes a, IntLanes b, IntLanes c) {
  return {_mm512_add_epi16(_mm512_mulhrs_epi16(a.v, b.v), c.v)};
}
// Both rounded to int16, as pairs. REQUIRES: magnitudes below 2^15.
inline IntLanes RoundPairs(Lanes even, Lanes odd) {
  return {_mm512_mask_blend_epi16(0xaaaaaaaau, _mm512_cvtps_epi32(even.v),
                                  _mm512_slli_epi32(_mm512_cvtps_epi32(odd.v), 16))};
}
// 16 values rounded to int16 in order.
inline void StoreInt16(int16_t* p, Lanes a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(a.v)));
}
inline IntLanes IntZero() { return {_mm512_setzero_si512()}; }

}  // namespace
}  // namespace corpusd
