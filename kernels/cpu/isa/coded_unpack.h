// kernels/cpu/isa/coded_unpack.h -- coded tiles to the int8 layout that the products take, in
// 256-bit vectors on every table: K [head_dim / 4][128][4], V [128 / 4][head_dim][4] levels, their
// float scales and means. The depth of each product comes in slot order: within every 16 dims of K,
// and every 16 tokens of V, 0 8 1 9 2 10 .. 7 15, which is how the tile holds them; queries and
// weights are put in that order instead. Included after coded_pack.h by one translation unit.
#pragma once

#include "kernels/coded_levels.h"

namespace corpusd {
namespace {

// Where the levels of a group go: quad t of fragment f, rows 0 .. 7, then 8 .. 15 of it 32 bytes
// on. By value and with constant strides where they are constant, so that stores need no look at
// memory.
template <bool kIsKey>
struct LevelTarget {
  std::byte* base;
  size_t value_stride;  // of the quads of a V tile
  void Store(uint32_t f, uint32_t t, uint32_t half, __m256i levels) const {
    const size_t place =
        kIsKey ? (size_t{f} * 4 + t) * kBlockTokens * 4 : size_t{f} * 64 + t * value_stride;
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(base + place + size_t{half} * 32), levels);
  }
};

inline __m256i TwiceInt8(const int8_t* sixteen) {
  return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(sixteen)));
}
// Codes of 2, 3 or 4 bits, one a byte, to levels.
template <uint32_t kBits>
struct LevelBytes {
  alignas(16) int8_t values[16];
  constexpr LevelBytes() : values() {
    for (uint32_t i = 0; i < 16; ++i) {
      values[i] = static_cast<int8_t>(LevelOfCode(kBits, i % (1u << kBits)));
    }
  }
};
template <uint32_t kBits>
inline __m256i LevelTable() {
  static constexpr LevelBytes<kBits> kTable;
  return TwiceInt8(kTable.values);
}

// planes[d]: dword d of the 16-byte piece at `piece` of lanes 4g .. 4g+3, for g = 0 .. 7 in order;
// pieces of g lie g_stride apart.
inline __attribute__((always_inline)) void LoadPlanes(const std::byte* piece, size_t g_stride,
                                                      __m256i (&planes)[4]) {
  __m256i v[4];
#pragma GCC unroll 4
  for (uint32_t k = 0; k < 4; ++k) {
    const auto* low = reinterpret_cast<const __m128i*>(piece + k * g_stride);
    const auto* high = reinterpret_cast<const __m128i*>(piece + (k + 4) * g_stride);
    v[k] = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(low)),
                                   _mm_loadu_si128(high), 1);
  }
  const __m256i a = _mm256_unpacklo_epi32(v[0], v[1]);
  const __m256i b = _mm256_unpackhi_epi32(v[0], v[1]);
  const __m256i c = _mm256_unpacklo_epi32(v[2], v[3]);
  const __m256i d = _mm256_unpackhi_epi32(v[2], v[3]);
  planes[0] = _mm256_unpacklo_epi64(a, c);
  planes[1] = _mm256_unpackhi_epi64(a, c);
  planes[2] = _mm256_unpacklo_epi64(b, d);
  planes[3] = _mm256_unpackhi_epi64(b, d);
}

// Calls visit(word, t, plane) for every word of a group's lanes.
template <uint32_t kRun, typename Visit>
inline __attribute__((always_inline)) void ForEachPlane(const std::byte* run, uint32_t first_word,
                                                        Visit visit) {
#pragma GCC unroll 4
  for (uint32_t piece = 0; piece < kRun; ++piece) {
    __m256i planes[4];
    LoadPlanes(run + piece * 16, size_t{kRun} * 16, planes);
#pragma GCC unroll 4
    for (uint32_t d = 0; d < 4; ++d) {
      visit(first_word + d % kRun, piece * (4 / kRun) + d / kRun, planes[d]);
    }
  }
}
template <typename Visit>
inline __attribute__((always_inline)) void ForEachWord(const std::byte* group, uint32_t words,
                                                       Visit visit) {
  uint32_t word = 0;
  for (; word + 4 <= words; word += 4) ForEachPlane<4>(group + size_t{word} * 128, word, visit);
  if (words - word >= 2) {
    ForEachPlane<2>(group + size_t{word} * 128, word, visit);
    word += 2;
  }
  if (words > word) ForEachPlane<1>(group + size_t{word} * 128, word, visit);
}

template <bool kIsKey>
inline __attribute__((always_inline)) void UnpackGroup8(const std::byte* group, uint32_t words,
                                                        LevelTarget<kIsKey> target) {
  alignas(16) static constexpr int8_t kSlots[16] = {0, 2,  1, 3,  4,  6,  5,  7,
                                                    8, 10, 9, 11, 12, 14, 13, 15};
  const __m256i slots = TwiceInt8(kSlots);
  const __m256i middle = _mm256_set1_epi8(static_cast<char>(0x80));
  ForEachWord(group, words, [=](uint32_t word, uint32_t t, __m256i plane) {
    target.Store(word / 2, t, word % 2,
                 _mm256_xor_si256(_mm256_shuffle_epi8(plane, slots), middle));
  });
}

template <bool kIsKey>
inline __attribute__((always_inline)) void UnpackGroup4(const std::byte* group, uint32_t words,
                                                        LevelTarget<kIsKey> target) {
  const __m256i table = LevelTable<4>();
  const __m256i mask = _mm256_set1_epi8(15);
  ForEachWord(group, words, [=](uint32_t word, uint32_t t, __m256i plane) {
    const __m256i high = _mm256_and_si256(_mm256_srli_epi32(plane, 4), mask);
    target.Store(word, t, 0, _mm256_shuffle_epi8(table, _mm256_and_si256(plane, mask)));
    target.Store(word, t, 1, _mm256_shuffle_epi8(table, high));
  });
}

template <bool kIsKey>
inline __attribute__((always_inline)) void UnpackGroup2(const std::byte* group, uint32_t words,
                                                        LevelTarget<kIsKey> target) {
  const __m256i table = LevelTable<2>();
  const __m256i mask = _mm256_set1_epi8(3);
  ForEachWord(group, words, [=](uint32_t word, uint32_t t, __m256i plane) {
#pragma GCC unroll 4
    for (int field = 0; field < 4; ++field) {
      const __m256i codes = _mm256_and_si256(_mm256_srli_epi32(plane, 2 * field), mask);
      target.Store(2 * word + static_cast<uint32_t>(field) / 2, t, static_cast<uint32_t>(field) % 2,
                   _mm256_shuffle_epi8(table, codes));
    }
  });
}

// Bits kShift + [0, 3) of each even byte, and kShift + 1 + [0, 3) of each odd one: a fragment's
// codes.
inline __m256i Spread(__m256i word, int shift) {
  const __m256i even = _mm256_set1_epi32(0x00070007);
  const __m256i odd = _mm256_set1_epi32(0x07000700);
  const __m128i low = _mm_cvtsi32_si128(shift);
  const __m128i high = _mm_cvtsi32_si128(shift + 1);
  return _mm256_or_si256(_mm256_and_si256(_mm256_srl_epi32(word, low), even),
                         _mm256_and_si256(_mm256_srl_epi32(word, high), odd));
}

template <bool kIsKey>
inline __attribute__((always_inline)) void UnpackGroup3(const std::byte* group, uint32_t words,
                                                        LevelTarget<kIsKey> target) {
  constexpr uint32_t kMaxWords = 12;
  __m256i planes[kMaxWords][4];
  ForEachWord(group, words,
              [&](uint32_t word, uint32_t t, __m256i plane) { planes[word][t] = plane; });
  const __m256i table = LevelTable<3>();
  const __m256i even = _mm256_set1_epi32(0x00070007);
  const __m256i odd = _mm256_set1_epi32(0x07000700);
  for (uint32_t base = 0; base < words; base += 3) {
    const uint32_t f = base / 3 * 4;
    for (uint32_t t = 0; t < 4; ++t) {
      const __m256i w0 = planes[base][t];
      const __m256i w1 = planes[base + 1][t];
      const __m256i w2 = planes[base + 2][t];
#pragma GCC unroll 3
      for (uint32_t k = 0; k < 3; ++k) {
        const __m256i w = planes[base + k][t];
        target.Store(f + k, t, 0, _mm256_shuffle_epi8(table, Spread(w, 0)));
        target.Store(f + k, t, 1, _mm256_shuffle_epi8(table, Spread(w, 3)));
      }
      const __m256i low = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi32(w0, 6), even),
                                          _mm256_and_si256(_mm256_slli_epi32(w2, 2), odd));
      const __m256i bits01 = _mm256_or_si256(
          _mm256_and_si256(_mm256_srli_epi32(w0, 7), _mm256_set1_epi32(0x01000100)),
          _mm256_and_si256(_mm256_srli_epi32(w1, 6), _mm256_set1_epi32(0x02000200)));
      const __m256i bits2 =
          _mm256_and_si256(_mm256_srli_epi32(w2, 5), _mm256_set1_epi32(0x04000400));
      const __m256i high = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi32(w1, 6), even),
                                           _mm256_or_si256(bits01, bits2));
      target.Store(f + 3, t, 0, _mm256_shuffle_epi8(table, low));
      target.Store(f + 3, t, 1, _mm256_shuffle_epi8(table, high));
    }
  }
}

template <uint32_t kBits, bool kIsKey>
inline void UnpackWidth(std::byte* out, const std::byte* tile, uint32_t head_dim, uint32_t tokens) {
  const auto words =
      static_cast<uint32_t>(CodedLaneWords(static_cast<int>(kBits), static_cast<int>(head_dim)));
  LevelTarget<kIsKey> target = {out, size_t{head_dim} * 4};
  for (uint32_t t = 0; t < tokens; t += 16) {
    if constexpr (kBits == 8) UnpackGroup8(tile, words, target);
    if constexpr (kBits == 4) UnpackGroup4(tile, words, target);
    if constexpr (kBits == 3) UnpackGroup3(tile, words, target);
    if constexpr (kBits == 2) UnpackGroup2(tile, words, target);
    tile += size_t{words} * 128;
    target.base += kIsKey ? 64 : size_t{16} * head_dim;
  }
}
template <uint32_t kBits>
inline void UnpackSide(std::byte* out, const std::byte* tile, bool is_key, uint32_t head_dim,
                       uint32_t tokens) {
  if (is_key) return UnpackWidth<kBits, true>(out, tile, head_dim, tokens);
  UnpackWidth<kBits, false>(out, tile, head_dim, tokens);
}
// The levels of the first `tokens` slots (rounded up to 16) of a tile.
void UnpackTile(std::byte* out, const std::byte* tile, uint32_t bits, bool is_key,
                uint32_t head_dim, uint32_t tokens) {
  if (bits == 8) return UnpackSide<8>(out, tile, is_key, head_dim, tokens);
  if (bits == 4) return UnpackSide<4>(out, tile, is_key, head_dim, tokens);
  if (bits == 3) return UnpackSide<3>(out, tile, is_key, head_dim, tokens);
  UnpackSide<2>(out, tile, is_key, head_dim, tokens);
}

// scales[128] of a level: of keys by token, of values in slot order; means[head_dim].
inline void UnpackScales(float* scales, float* means, const std::byte* tile, uint32_t bits,
                         bool is_key, uint32_t head_dim) {
  const std::byte* bytes =
      tile + CodedCodeBytes(static_cast<int>(bits), static_cast<int>(head_dim));
  const __m128i natural = _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
  const __m256 unit = _mm256_set1_ps(1.0f / LevelUnit(bits));
  for (uint32_t t = 0; t < kBlockTokens; t += 16) {
    __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + t));
    if (is_key) v = _mm_shuffle_epi8(v, natural);
#pragma GCC unroll 2
    for (uint32_t half = 0; half < 2; ++half) {
      const __m256i wide = _mm256_cvtepu8_epi32(half == 0 ? v : _mm_srli_si128(v, 8));
      const __m256i scale = _mm256_add_epi32(_mm256_slli_epi32(wide, kScaleShift),
                                             _mm256_set1_epi32(static_cast<int>(kScaleBase)));
      _mm256_storeu_ps(scales + t + 8 * half, _mm256_mul_ps(_mm256_castsi256_ps(scale), unit));
    }
  }
  for (uint32_t j = 0; j < head_dim; j += 8) {
    const __m128i v = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes + kBlockTokens + j));
    _mm256_storeu_ps(means + j, _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(v)),
                                              _mm256_set1_ps(kMeanStep)));
  }
}

}  // namespace
}  // namespace corpusd
