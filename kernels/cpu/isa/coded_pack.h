// kernels/cpu/isa/coded_pack.h -- codes to their places in a coded tile (kernels/coded_tile.h), 16
// x 16 of them at a time, in 128-bit vectors. Included after a lanes_*.h by one translation unit.
#pragma once

#include "kernels/coded_tile.h"
#include "kernels/kv_format.h"

namespace corpusd {
namespace {

// The order in which a lane's bytes of a row follow: columns 2t, 2t+8, 2t+1, 2t+9.
inline __m128i SlotOrder() {
  return _mm_setr_epi8(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15);
}

// rows[r] byte c <-> rows[c] byte r.
inline void Transpose16(__m128i (&rows)[16]) {
  __m128i next[16];
  // Each round interleaves row i with row i + 8: four of them are a transposition.
  for (uint32_t round = 0; round < 4; ++round) {
#pragma GCC unroll 8
    for (uint32_t i = 0; i < 8; ++i) {
      next[2 * i] = _mm_unpacklo_epi8(rows[i], rows[i + 8]);
      next[2 * i + 1] = _mm_unpackhi_epi8(rows[i], rows[i + 8]);
    }
#pragma GCC unroll 16
    for (uint32_t i = 0; i < 16; ++i) rows[i] = next[i];
  }
}

// Writes word `word` of lanes 4g .. 4g+3 of a group.
inline void PutWords(std::byte* group, uint32_t words, uint32_t word, uint32_t g, __m128i values) {
  alignas(16) uint32_t each[4];
  _mm_store_si128(reinterpret_cast<__m128i*>(each), values);
  for (uint32_t t = 0; t < 4; ++t) {
    const int offset = CodedWordOffset(static_cast<int>(words), static_cast<int>(word),
                                       static_cast<int>(4 * g + t));
    __builtin_memcpy(group + offset, &each[t], 4);
  }
}

// Three words of 3-bit codes hold four fragments: low[f], high[f] are rows g and g + 8 of each.
inline void PackThree(const __m128i (&low)[4], const __m128i (&high)[4], __m128i (&words)[3]) {
  const __m128i even = _mm_set1_epi32(0x00ff00ff);
  const __m128i bit = _mm_set1_epi32(0x00010001);
#pragma GCC unroll 3
  for (int k = 0; k < 3; ++k) {
    const auto spread = [even](__m128i a) {
      return _mm_or_si128(_mm_and_si128(a, even), _mm_slli_epi32(_mm_andnot_si128(even, a), 1));
    };
    words[k] = _mm_or_si128(spread(low[k]), _mm_slli_epi32(spread(high[k]), 3));
    const __m128i odd = _mm_and_si128(_mm_srl_epi32(high[3], _mm_cvtsi32_si128(8 + k)), bit);
    words[k] = _mm_or_si128(words[k], _mm_slli_epi32(odd, 15));
  }
  words[0] = _mm_or_si128(words[0], _mm_slli_epi32(_mm_and_si128(low[3], even), 6));
  words[1] = _mm_or_si128(words[1], _mm_slli_epi32(_mm_and_si128(high[3], even), 6));
  words[2] = _mm_or_si128(words[2], _mm_srli_epi32(_mm_andnot_si128(even, low[3]), 2));
}

// Rows g and g + 8 of the fragments of a group, columns in slot order, into the group's bytes.
// rows: [head_dim / 16][16].
inline void PackRows(std::byte* group, uint32_t bits, uint32_t head_dim, const __m128i* rows) {
  const auto words =
      static_cast<uint32_t>(CodedLaneWords(static_cast<int>(bits), static_cast<int>(head_dim)));
  const __m128i natural = _mm_setr_epi8(0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15);
  for (uint32_t g = 0; g < 8; ++g) {
    for (uint32_t f = 0; f < head_dim / 16; f += 4) {
      __m128i low[4];
      __m128i high[4];
      for (uint32_t k = 0; k < 4; ++k) {
        low[k] = rows[(f + k) * 16 + g];
        high[k] = rows[(f + k) * 16 + g + 8];
      }
      if (bits == 3) {
        __m128i packed[3];
        PackThree(low, high, packed);
        for (uint32_t k = 0; k < 3; ++k) PutWords(group, words, f / 4 * 3 + k, g, packed[k]);
        continue;
      }
      for (uint32_t k = 0; k < 4; ++k) {
        if (bits == 8) {
          PutWords(group, words, 2 * (f + k), g, _mm_shuffle_epi8(low[k], natural));
          PutWords(group, words, 2 * (f + k) + 1, g, _mm_shuffle_epi8(high[k], natural));
        } else if (bits == 4) {
          PutWords(group, words, f + k, g, _mm_or_si128(low[k], _mm_slli_epi32(high[k], 4)));
        } else if (k % 2 == 0) {
          const __m128i first = _mm_or_si128(low[k], _mm_slli_epi32(high[k], 2));
          const __m128i second = _mm_or_si128(low[k + 1], _mm_slli_epi32(high[k + 1], 2));
          PutWords(group, words, (f + k) / 2, g, _mm_or_si128(first, _mm_slli_epi32(second, 4)));
        }
      }
    }
  }
}

// One group of 16 tokens. codes: [head_dim][16 tokens].
inline void PackGroup(std::byte* group, uint32_t bits, bool is_key, uint32_t head_dim,
                      const uint8_t* codes) {
  constexpr uint32_t kMaxFragments = 16;
  __m128i rows[kMaxFragments * 16];
  for (uint32_t f = 0; f < head_dim / 16; ++f) {
    __m128i square[16];
    for (uint32_t i = 0; i < 16; ++i) {
      square[i] =
          _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + size_t{f * 16 + i} * 16));
    }
    if (is_key) Transpose16(square);  // rows are tokens
    for (uint32_t i = 0; i < 16; ++i) {
      rows[f * 16 + i] = _mm_shuffle_epi8(square[i], SlotOrder());
    }
  }
  PackRows(group, bits, head_dim, rows);
}

}  // namespace
}  // namespace corpusd
