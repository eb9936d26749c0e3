// kernels/cuda/level_bytes.h -- codes of the cq formats become bytes 128 + level: keys as the A
// operand of the tensor core's integer product, values as halves. Columns stand in an order of
// their own, which the other factor follows: so a code is looked up where it lies, four at a time.
// Plain arithmetic for host and device, so that a CPU test runs the very unpacking of the kernels.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/level_fragment.h"
#ifdef __CUDACC__
#include "kernels/cuda/ptx/permute.cuh"
#endif

namespace corpusd::cuda {

namespace detail {

// PermuteBytes, but a selector with its top bit set gives that byte's top bit, eight times.
CORPUSD_HOST_DEVICE uint32_t PermuteSignedBytes(uint32_t low, uint32_t high, uint32_t selector) {
#ifdef __CUDA_ARCH__
  return ptx::PermuteSigned(low, high, selector);
#else
  uint32_t result = PermuteBytes(low, high, selector);
  for (int i = 0; i < 4; ++i) {
    if ((selector >> (4 * i + 3) & 1) == 0) continue;
    const uint32_t top = result >> (8 * i + 7) & 1;
    result = (result & ~(0xFFu << 8 * i)) | (top * 0xFFu) << 8 * i;
  }
  return result;
#endif
}

// Magnitudes of the levels of 4-bit codes first .. first + 3: their top bits are clear.
constexpr uint32_t MagnitudeBytes(uint32_t first) {
  uint32_t bytes = 0;
  for (uint32_t i = 0; i < 4; ++i) {
    const int level = LevelOfCode(4, first + i);
    bytes |= static_cast<uint32_t>(level < 0 ? -level : level) << 8 * i;
  }
  return bytes;
}

}  // namespace detail

// What codes are looked up in. A kernel reads it from memory at its start, or the assembler would
// put the constants into new registers at every use.
template <int Bits>
struct LevelTable {
  uint32_t words[2];
};
// A table for kernels whose permuting pipe is full: factors of 1 and -1 that the compiler does not
// know make products of sums, which do not take turns with the permutations.
template <int Bits>
struct ProductTable : LevelTable<Bits> {
  uint32_t one, minus_one;
};
template <int Bits>
CORPUSD_HOST_DEVICE constexpr LevelTable<Bits> MakeLevelTable() {
  if constexpr (Bits == 4) {
    constexpr LevelTable<Bits> kTable = {{detail::MagnitudeBytes(0), detail::MagnitudeBytes(4)}};
    return kTable;
  } else if constexpr (Bits == 8) {
    return {};  // levels need no table
  } else {
    constexpr LevelTable<Bits> kTable = {{kLevelBytes<Bits, 0>, kLevelBytes<Bits, 4>}};
    return kTable;
  }
}

namespace detail {

// Four codes in the low nibbles become the bytes 128 + level. flipped: the nibbles' complement. A
// 4-bit code below 8 finds its magnitude, its complement zero, and the other way round from 8 on:
// so a difference of whole words neither borrows nor carries.
template <int Bits, class Table>
CORPUSD_HOST_DEVICE uint32_t LookUpFour(const Table& table, uint32_t nibbles, uint32_t flipped) {
  const auto& words = table.words;
  if constexpr (Bits == 4) {
    const uint32_t negative = PermuteSignedBytes(words[0], words[1], nibbles);
    const uint32_t positive = PermuteSignedBytes(words[0], words[1], flipped);
    if constexpr (std::is_same_v<Table, ProductTable<4>>) {
      return positive * table.one + (negative * table.minus_one + 0x80808080u);
    } else {
      return 0x80808080u - negative + positive;
    }
  } else if constexpr (Bits == 3) {
    return PermuteSignedBytes(words[0], words[1], nibbles);
  } else {
    return PermuteSignedBytes(words[0], 0, nibbles);
  }
}
// The upper four of eight nibbles, as products: shifts would take turns with the permutations. Of 2
// and 3 bits the nibbles' top bits are clear.
template <int Bits>
CORPUSD_HOST_DEVICE uint32_t UpperNibbles(uint32_t nibbles) {
#ifdef __CUDA_ARCH__
  return Bits == 4 ? ptx::HighHalf(nibbles) : ptx::HighHalfOfNumbers(nibbles);
#else
  return nibbles >> 16;
#endif
}
// Eight codes in nibbles: those of the low half word, and of the high one.
template <int Bits, class Table>
CORPUSD_HOST_DEVICE void LookUpEight(const Table& table, uint32_t nibbles, uint32_t* low,
                                     uint32_t* high) {
  const uint32_t flipped = ~nibbles;
  *low = LookUpFour<Bits>(table, nibbles, flipped);
  *high = LookUpFour<Bits>(table, UpperNibbles<Bits>(nibbles), UpperNibbles<Bits>(flipped));
}

// The codes of fragment f, 3 or 4 bits: register r, half h in nibble r + 4 h.
template <int Bits, int Words>
CORPUSD_HOST_DEVICE uint32_t NibbleCodes(const uint32_t (&words)[Words], int f) {
  if constexpr (Bits == 4) return words[f];
  const int base = f / 4 * 3;
  if (f % 4 < 3) {
    const uint32_t w = words[base + f % 4];
    return (w & 0x70077007u) | (w << 1 & 0x00700070u) | (w >> 1 & 0x07000700u);
  }
  const uint32_t x = words[base], y = words[base + 1], z = words[base + 2];
  return (x >> 6 & 0x00070007u) | (x >> 3 & 0x10001000u) | (y >> 2 & 0x20702070u) |
         (z << 2 & 0x07000700u) | (z >> 1 & 0x40004000u);
}

// Registers 0 and 2 of fragments 2 pair and 2 pair + 1 (rows g), nibble by nibble in turns, and
// their registers 1 and 3 (rows g + 8); 2 to 4 bits.
template <int Bits, int Words>
CORPUSD_HOST_DEVICE void PairCodes(const uint32_t (&words)[Words], int pair, uint32_t* rows,
                                   uint32_t* rows_below) {
  if constexpr (Bits == 2) {
    *rows = words[pair] & 0x33333333u;
    *rows_below = words[pair] >> 2 & 0x33333333u;
  } else {
    const uint32_t first = NibbleCodes<Bits>(words, 2 * pair);
    const uint32_t second = NibbleCodes<Bits>(words, 2 * pair + 1);
    *rows = (first & 0x0F0F0F0Fu) | (second << 4 & 0xF0F0F0F0u);
    *rows_below = (first >> 4 & 0x0F0F0F0Fu) | (second & 0xF0F0F0F0u);
  }
}

// Two bytes as halves of 1024 + byte: bytes 0 and 2, or 1 and 3.
template <bool Odd>
CORPUSD_HOST_DEVICE uint32_t SpreadEveryOther(uint32_t bytes) {
  return PermuteBytes(bytes, 0x64646464u, Odd ? 0x4341u : 0x4240u);
}

}  // namespace detail

// The A operand of m16n8k32 for fragments 2 pair and 2 pair + 1 of a group of keys, bytes of
// 128 + level: rows g and g + 8 in even and odd registers. Byte b of registers 0 and 1 and of
// registers 2 and 3 (half 0, 1) stands for column KeyColumn(Bits, half, b) + 2 t of the 32.
template <int Bits, class Table, int Words>
CORPUSD_HOST_DEVICE void KeyBytes(const Table& table, const uint32_t (&words)[Words], int pair,
                                  uint32_t (&a)[4]) {
  if constexpr (Bits == 8) {
    for (int r = 0; r < 4; ++r) a[r] = words[4 * pair + r];
  } else {
    uint32_t rows, rows_below;
    detail::PairCodes<Bits>(words, pair, &rows, &rows_below);
    detail::LookUpEight<Bits>(table, rows, &a[0], &a[2]);
    detail::LookUpEight<Bits>(table, rows_below, &a[1], &a[3]);
  }
}
CORPUSD_HOST_DEVICE constexpr int KeyColumn(int bits, int half, int byte) {
  return bits == 8 ? 16 * half + 8 * (byte / 2) + byte % 2
                   : 16 * (byte % 2) + 8 * (byte / 2) + half;
}

// Fragments 2 pair and 2 pair + 1 of a group of values as A operands of m16n8k16, halves of
// 1152 + level. Halves 0 and 1 of registers 0 and 1 stand for columns 2 t and 2 t + 8, those of
// registers 2 and 3 for the columns behind them.
template <int Bits, class Table, int Words>
CORPUSD_HOST_DEVICE void ValueHalves(const Table& table, const uint32_t (&words)[Words], int pair,
                                     uint32_t (&a)[2][4]) {
  if constexpr (Bits == 2) {
    uint32_t rows, rows_below, bytes[4];
    detail::PairCodes<Bits>(words, pair, &rows, &rows_below);
    detail::LookUpEight<Bits>(table, rows, &bytes[0], &bytes[2]);
    detail::LookUpEight<Bits>(table, rows_below, &bytes[1], &bytes[3]);
    for (int r = 0; r < 4; ++r) {
      a[0][r] = detail::SpreadEveryOther<false>(bytes[r]);
      a[1][r] = detail::SpreadEveryOther<true>(bytes[r]);
    }
  } else if constexpr (Bits == 8) {
    for (int i = 0; i < 2; ++i) {
      const int f = 2 * pair + i;
      for (int r = 0; r < 2; ++r) {
        a[i][r] = detail::SpreadEveryOther<false>(words[2 * f + r]);
        a[i][r + 2] = detail::SpreadEveryOther<true>(words[2 * f + r]);
      }
    }
  } else {
    for (int i = 0; i < 2; ++i) {
      uint32_t low, high;
      detail::LookUpEight<Bits>(table, detail::NibbleCodes<Bits>(words, 2 * pair + i), &low, &high);
      a[i][0] = detail::SpreadEveryOther<false>(low);
      a[i][1] = detail::SpreadEveryOther<true>(low);
      a[i][2] = detail::SpreadEveryOther<false>(high);
      a[i][3] = detail::SpreadEveryOther<true>(high);
    }
  }
}

// Four integers of 16 bits as high and low signed bytes: each comes with 128 added.
CORPUSD_HOST_DEVICE void SplitBytes(uint32_t a, uint32_t b, uint32_t c, uint32_t d, uint32_t* high,
                                    uint32_t* low) {
  const uint32_t x = PermuteBytes(a, b, 0x5140), y = PermuteBytes(c, d, 0x5140);
  *high = PermuteBytes(x, y, 0x7632);
  *low = PermuteBytes(x, y, 0x5410) ^ 0x80808080u;
}

}  // namespace corpusd::cuda
