// kernels/cpu/isa/index_bytes_avx2.h -- products of byte queries with a group of an index tile by
// paired byte products (vpmaddubsw): a pair is at most 2 * 15 * 127, so 8 of them fit 16 bits.
// Included after a lanes_*.h, before index_scan.h, by one translation unit.
#pragma once

namespace corpusd {
namespace {

constexpr uint32_t kIndexRows = 3;  // 2 sums in 16 bits and 2 in 32 each: 12 of 16 registers

inline __m256i QueryQuad(const int8_t* p) {
  int quad;
  __builtin_memcpy(&quad, p, 4);
  return _mm256_set1_epi32(quad);
}

// dots[r][t] = the sum over dims of query r's codes times those of token t of the group.
template <uint32_t kRows>
inline void IndexDots(int32_t (*dots)[16], const std::byte* group, uint32_t head_dim,
                      const int8_t* queries) {
  const __m256i nibble = _mm256_set1_epi8(15);
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i sums[kRows][2];
#pragma GCC unroll 4
  for (uint32_t r = 0; r < kRows; ++r) sums[r][0] = sums[r][1] = _mm256_setzero_si256();
  for (uint32_t first = 0; first < head_dim; first += 16) {
    __m256i pairs[kRows][2];
#pragma GCC unroll 4
    for (uint32_t r = 0; r < kRows; ++r) pairs[r][0] = pairs[r][1] = _mm256_setzero_si256();
#pragma GCC unroll 2
    for (uint32_t v = 0; v < 2; ++v) {
      const auto* codes = reinterpret_cast<const __m256i*>(group + (size_t{first} / 8 + v) * 64);
#pragma GCC unroll 2
      for (uint32_t half = 0; half < 2; ++half) {
        const __m256i both = _mm256_loadu_si256(codes + half);
        const __m256i low = _mm256_and_si256(both, nibble);
        const __m256i high = _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble);
#pragma GCC unroll 4
        for (uint32_t r = 0; r < kRows; ++r) {
          const int8_t* q = queries + size_t{r} * head_dim + first + v * 8;
          const __m256i products = _mm256_add_epi16(_mm256_maddubs_epi16(low, QueryQuad(q)),
                                                    _mm256_maddubs_epi16(high, QueryQuad(q + 4)));
          pairs[r][half] = _mm256_add_epi16(pairs[r][half], products);
        }
      }
    }
#pragma GCC unroll 4
    for (uint32_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (uint32_t half = 0; half < 2; ++half) {
        sums[r][half] = _mm256_add_epi32(sums[r][half], _mm256_madd_epi16(pairs[r][half], ones));
      }
    }
  }
#pragma GCC unroll 4
  for (uint32_t r = 0; r < kRows; ++r) {
    auto* out = reinterpret_cast<__m256i*>(dots[r]);
    _mm256_storeu_si256(out, sums[r][0]);
    _mm256_storeu_si256(out + 1, sums[r][1]);
  }
}

}  // namespace
}  // namespace corpusd
