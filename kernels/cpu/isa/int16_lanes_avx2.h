// kernels/cpu/isa/int16_lanes_avx2.h -- what the int16 kernel bodies need beyond lanes_avx2.h:
// pairs of int16 in 32-bit lanes, their dot products, conversions. Included after it by one
// translation unit only.
#pragma once

namespace corpusd {
namespace {

// 4 x 2 sums, 2 weights, one broadcast and the products' copies: 16 registers.
constexpr uint32_t kInt16TileRows = 4;
constexpr uint32_t kInt16TilePanels = 1;
constexpr uint32_t kInt16DirectRows = 4;  // rows that share one unpacking of the codes

// Each 32-bit lane: sum + a0 * w0 + a1 * w1, modulo 2^32.
inline IntLanes DotPairs(IntLanes sum, IntLanes a, IntLanes w) {
  return {_mm256_add_epi32(sum.lo, _mm256_madd_epi16(a.lo, w.lo)),
          _mm256_add_epi32(sum.hi, _mm256_madd_epi16(a.hi, w.hi))};
}
inline IntLanes AddInt(IntLanes a, IntLanes b) {
  return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)};
}
inline IntLanes BroadcastPair(const int16_t* p) {
  // As a float: the broadcast that needs no shuffle unit.
  const __m256i v = _mm256_castps_si256(_mm256_broadcast_ss(reinterpret_cast<const float*>(p)));
  return {v, v};
}
inline Lanes ToFloat(IntLanes v) { return {_mm256_cvtepi32_ps(v.lo), _mm256_cvtepi32_ps(v.hi)}; }
inline void StoreInt(void* p, IntLanes v) {
  auto* target = static_cast<__m256i*>(p);
  _mm256_storeu_si256(target, v.lo);
  _mm256_storeu_si256(target + 1, v.hi);
}
// The nibbles at bits kShift and 16 + kShift of each lane, as a pair.
template <int kShift>
inline IntLanes NibblePairs(IntLanes v) {
  const __m256i mask = _mm256_set1_epi32(0x000f000f);
  return {_mm256_and_si256(_mm256_srli_epi32(v.lo, kShift), mask),
          _mm256_and_si256(_mm256_srli_epi32(v.hi, kShift), mask)};
}
// The same times 2^11.
template <int kShift>
inline IntLanes HighNibblePairs(IntLanes v) {
  const __m256i mask = _mm256_set1_epi32(0x78007800);
  const auto one = [mask](__m256i a) {
    if constexpr (kShift <= 11) return _mm256_and_si256(_mm256_slli_epi32(a, 11 - kShift), mask);
    return _mm256_and_si256(_mm256_srli_epi32(a, kShift - 11), mask);
  };
  return {one(v.lo), one(v.hi)};
}
// Signed bytes kFirst and kFirst + 1 of each lane times 2^8, as a pair.
template <int kFirst>
inline IntLanes HighBytePairs(IntLanes v) {
  constexpr char kA = kFirst, kB = kFirst + 1;
  const __m256i places = _mm256_setr_epi8(
      -1, kA, -1, kB, -1, kA + 4, -1, kB + 4, -1, kA + 8, -1, kB + 8, -1, kA + 12, -1, kB + 12, -1,
      kA, -1, kB, -1, kA + 4, -1, kB + 4, -1, kA + 8, -1, kB + 8, -1, kA + 12, -1, kB + 12);
  return {_mm256_shuffle_epi8(v.lo, places), _mm256_shuffle_epi8(v.hi, places)};
}
template <int kFirst>
inline IntLanes BytePairs(IntLanes v) {
  const IntLanes high = HighBytePairs<kFirst>(v);
  return {_mm256_srai_epi16(high.lo, 8), _mm256_srai_epi16(high.hi, 8)};
}
// Each int16: (a * b + 2^14) / 2^15, rounded down, plus c.
inline IntLanes MulAddHigh(IntLanes a, IntLanes b, IntLanes c) {
  return {_mm256_add_epi16(_mm256_mulhrs_epi16(a.lo, b.lo), c.lo),
          _mm256_add_epi16(_mm256_mulhrs_epi16(a.hi, b.hi), c.hi)};
}
// Both rounded to int16, as pairs. REQUIRES: magnitudes below 2^15.
inline IntLanes RoundPairs(Lanes even, Lanes odd) {
  const auto one = [](__m256 a, __m256 b) {
    return _mm256_blend_epi16(_mm256_cvtps_epi32(a), _mm256_slli_epi32(_mm256_cvtps_epi32(b), 16),
                              0xaa);
  };
  return {one(even.lo, odd.lo), one(even.hi, odd.hi)};
}
// 16 values rounded to int16 in order.
inline void StoreInt16(int16_t* p, Lanes v) {
  const __m256i packed = _mm256_packs_epi32(_mm256_cvtps_epi32(v.lo), _mm256_cvtps_epi32(v.hi));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xd8));
}
inline IntLanes IntZero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }

}  // namespace
}  // namespace corpusd
