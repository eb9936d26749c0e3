// kernels/cpu/isa/index_bytes_vnni.h -- products of byte queries with a group of an index tile by
// byte dot products (AVX512_VNNI): the 16 tokens of a group are the lanes of a vector. Included
// after lanes_avx512.h, before index_scan.h, by one translation unit.
#pragma once

namespace corpusd {
namespace {

constexpr uint32_t kIndexRows = 8;

inline __m512i QueryQuad(const int8_t* p) {
  int quad;
  __builtin_memcpy(&quad, p, 4);
  return _mm512_set1_epi32(quad);
}

// dots[r][t] = the sum over dims of query r's codes times those of token t of the group.
template <uint32_t kRows>
inline void IndexDots(int32_t (*dots)[16], const std::byte* group, uint32_t head_dim,
                      const int8_t* queries) {
  const __m512i nibble = _mm512_set1_epi8(15);
  __m512i sums[kRows];
#pragma GCC unroll 8
  for (uint32_t r = 0; r < kRows; ++r) sums[r] = _mm512_setzero_si512();
  for (uint32_t first = 0; first < head_dim; first += 8) {
    const __m512i both = _mm512_loadu_si512(group + size_t{first} * 8);
    const __m512i low = _mm512_and_si512(both, nibble);
    const __m512i high = _mm512_and_si512(_mm512_srli_epi16(both, 4), nibble);
#pragma GCC unroll 8
    for (uint32_t r = 0; r < kRows; ++r) {
      const int8_t* q = queries + size_t{r} * head_dim + first;
      sums[r] = _mm512_dpbusd_epi32(sums[r], low, QueryQuad(q));
      sums[r] = _mm512_dpbusd_epi32(sums[r], high, QueryQuad(q + 4));
    }
  }
#pragma GCC unroll 8
  for (uint32_t r = 0; r < kRows; ++r) _mm512_storeu_si512(dots[r], sums[r]);
}

}  // namespace
}  // namespace corpusd
