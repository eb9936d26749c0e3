// kernels/cpu/isa/int16_lanes_avx2.h -- what the int16 kernel bodies need beyond lanes_avx2.h:
// pairs of int16 in 32-bit lanes, their dot products, conversions. Included after it by one
// translation unit only.
#pragma once

namespace corpusd {
namespace {

// 6 rows x 1 panel: as the float32 tiles, in which many rows run here.
constexpr uint32_t kInt16TileRows = 6;
constexpr bool kFloatDots = true;  // for many rows: FMA runs at the rate of the paired product here
constexpr uint32_t kInt16TilePanels = 1;

// Each 32-bit lane: sum + a0 * w0 + a1 * w1.
inline IntLanes DotPairs(IntLanes sum, IntLanes a, IntLanes w) {
  return {_mm256_add_epi32(sum.lo, _mm256_madd_epi16(a.lo, w.lo)),
          _mm256_add_epi32(sum.hi, _mm256_madd_epi16(a.hi, w.hi))};
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
inline Lanes Absolute(Lanes v) {
  const __m256 mask = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  return {_mm256_and_ps(v.lo, mask), _mm256_and_ps(v.hi, mask)};
}
// The nibbles at bits kShift and 16 + kShift of each lane, as a pair.
template <int kShift>
inline IntLanes NibblePairs(IntLanes v) {
  const __m256i mask = _mm256_set1_epi32(0x000f000f);
  return {_mm256_and_si256(_mm256_srli_epi32(v.lo, kShift), mask),
          _mm256_and_si256(_mm256_srli_epi32(v.hi, kShift), mask)};
}
// Signed bytes kFirst and kFirst + 1 of each lane, as a pair.
template <int kFirst>
inline IntLanes BytePairs(IntLanes v) {
  constexpr char kA = kFirst, kB = kFirst + 1;
  const __m256i places = _mm256_setr_epi8(
      -1, kA, -1, kB, -1, kA + 4, -1, kB + 4, -1, kA + 8, -1, kB + 8, -1, kA + 12, -1, kB + 12, -1,
      kA, -1, kB, -1, kA + 4, -1, kB + 4, -1, kA + 8, -1, kB + 8, -1, kA + 12, -1, kB + 12);
  return {_mm256_srai_epi16(_mm256_shuffle_epi8(v.lo, places), 8),
          _mm256_srai_epi16(_mm256_shuffle_epi8(v.hi, places), 8)};
}
// 16 values rounded to int16 in order.
inline void StoreInt16(int16_t* p, Lanes v) {
  const __m256i packed = _mm256_packs_epi32(_mm256_cvtps_epi32(v.lo), _mm256_cvtps_epi32(v.hi));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xd8));
}
inline IntLanes IntZero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
}  // namespace
}  // namespace corpusd
