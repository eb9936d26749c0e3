// kernels/cpu/isa/group_bytes.h -- how int16_groups.h keeps and multiplies a row's codes where the
// processor multiplies bytes (AVX512_VNNI): an int16 is 256 * high + low, a signed and an unsigned
// byte, and vpdpbusd takes an unsigned factor and a signed one. The sums are the same integers as
// of int16 products, for half the instructions: packed codes become bytes in one or two operations
// and a product takes four of them. Included after the int16 lanes, before int16_groups.h, by one
// translation unit.
#pragma once

namespace corpusd {
namespace {

// A prepared row: per 32 inputs high and low bytes in order, for 8-bit codes, then both again in
// the order of kQ4's nibbles; sums of the codes, as floats, and the scale of the row; per 32 inputs
// -128 times the sum of the high bytes.
constexpr uint32_t kGroupCodeBytes = 4 * kQuantBlock;
constexpr uint32_t kNibbleOrder = 2 * kQuantBlock;  // where the second order begins
constexpr uint64_t GroupSumsOffset(uint32_t cols) {
  return uint64_t{cols} / kQuantBlock * kGroupCodeBytes;
}
constexpr uint64_t GroupHighSumsOffset(uint32_t cols) {
  return GroupSumsOffset(cols) + (uint64_t{cols} / kQuantBlock + 1) * 4;
}
constexpr uint64_t GroupRowBytes(uint32_t cols) {
  return (GroupHighSumsOffset(cols) + uint64_t{cols} / kQuantBlock * 4 + 63) / 64 * 64;
}

// The 32 codes of group g, whole numbers below 2^15. RETURNS their sum.
inline float StoreGroup(std::byte* row, uint32_t cols, uint32_t g, Lanes q0, Lanes q1) {
  const __m512i codes =
      _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(q0.v))),
                         _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(q1.v)), 1);
  const __m256i high = _mm512_cvtepi16_epi8(_mm512_srai_epi16(codes, 8));
  const __m256i low = _mm512_cvtepi16_epi8(codes);
  // Inputs of the low nibbles of 8 (a 32-bit lane of kQ4), then of the high ones.
  const __m256i order = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15));
  auto* out = reinterpret_cast<__m256i*>(row + size_t{g} * kGroupCodeBytes);
  _mm256_storeu_si256(out, high);
  _mm256_storeu_si256(out + 1, low);
  _mm256_storeu_si256(out + 2, _mm256_shuffle_epi8(high, order));
  _mm256_storeu_si256(out + 3, _mm256_shuffle_epi8(low, order));
  // Sums of eight bytes each, high ones made unsigned; both are added up at once, as the halves of
  // 64 bits.
  const __m256i zero = _mm256_setzero_si256();
  const __m256i both = _mm256_or_si256(
      _mm256_slli_epi64(_mm256_sad_epu8(_mm256_xor_si256(high, _mm256_set1_epi8(-128)), zero), 32),
      _mm256_sad_epu8(low, zero));
  const __m128i two =
      _mm_add_epi64(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
  const auto all =
      static_cast<uint64_t>(_mm_cvtsi128_si64(_mm_add_epi64(two, _mm_unpackhi_epi64(two, two))));
  const int high_sum = static_cast<int>(all >> 32) - 128 * static_cast<int>(kQuantBlock);
  reinterpret_cast<int32_t*>(row + GroupHighSumsOffset(cols))[g] = -128 * high_sum;
  return static_cast<float>(256 * high_sum + static_cast<int>(static_cast<uint32_t>(all)));
}

inline __m512i BroadcastBytes(const std::byte* p) {
  int four;
  __builtin_memcpy(&four, p, 4);
  return _mm512_set1_epi32(four);
}

// dots[r] = the sum over the 32 inputs of group g of row r's codes times the panel's, exactly.
// rows: kRows prepared rows of `cols`, row_bytes apart; codes: the panel's.
template <PackedKind kKind, uint32_t kRows>
inline __attribute__((always_inline)) void GroupDots(IntLanes* dots, const std::byte* rows,
                                                     uint64_t row_bytes, uint32_t cols,
                                                     const std::byte* codes, uint32_t g) {
  constexpr bool kNibbles = kKind == PackedKind::kQ4;
  constexpr uint32_t kVectors = kNibbles ? 4 : 8;
  const __m512i nibble = _mm512_set1_epi8(15);
  const __m512i top_bit = _mm512_set1_epi8(-128);
  __m512i high[kRows], low[kRows];
  for (uint32_t r = 0; r < kRows; ++r) {
    low[r] = high[r] = _mm512_setzero_si512();
    // Signed codes are made unsigned by adding 128: the sum starts below by what that adds.
    if (!kNibbles)
      high[r] = BroadcastBytes(rows + r * row_bytes + GroupHighSumsOffset(cols) + g * 4);
  }
  rows += size_t{g} * kGroupCodeBytes;
#pragma GCC unroll 8
  for (uint32_t c = 0; c < kVectors; ++c) {
    const __m512i w = _mm512_loadu_si512(codes + (size_t{g} * kVectors + c) * 64);
    const __m512i first = _mm512_and_si512(w, nibble);
    const __m512i second = _mm512_and_si512(_mm512_srli_epi32(w, 4), nibble);
    const __m512i shifted = _mm512_xor_si512(w, top_bit);
#pragma GCC unroll 8
    for (uint32_t r = 0; r < kRows; ++r) {
      const std::byte* a = rows + r * row_bytes;
      if constexpr (kNibbles) {
        a += kNibbleOrder + 8 * c;
        high[r] = _mm512_dpbusd_epi32(high[r], first, BroadcastBytes(a));
        high[r] = _mm512_dpbusd_epi32(high[r], second, BroadcastBytes(a + 4));
        low[r] = _mm512_dpbusd_epi32(low[r], BroadcastBytes(a + kQuantBlock), first);
        low[r] = _mm512_dpbusd_epi32(low[r], BroadcastBytes(a + kQuantBlock + 4), second);
      } else {
        a += 4 * c;
        high[r] = _mm512_dpbusd_epi32(high[r], shifted, BroadcastBytes(a));
        low[r] = _mm512_dpbusd_epi32(low[r], BroadcastBytes(a + kQuantBlock), w);
      }
    }
  }
  for (uint32_t r = 0; r < kRows; ++r) {
    dots[r] = {_mm512_add_epi32(_mm512_slli_epi32(high[r], 8), low[r])};
  }
}

}  // namespace
}  // namespace corpusd
