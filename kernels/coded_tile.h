// kernels/coded_tile.h -- where the bits of a coded K or V tile lie (the cq formats), for CPU and
// CUDA alike: the order in which the tensor cores want them, which also brings bytes that vectors
// take apart with shifts and masks. Plain arithmetic for host and device; no CUDA header needed.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define CORPUSD_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define CORPUSD_HOST_DEVICE inline
#endif

namespace corpusd {

// A tile is 128 tokens x head_dim codes of 2, 3, 4 or 8 bits, then one scale byte a token, then one
// signed byte a dim (the block's mean), padded to 64 bytes. Its 8 groups of 16 tokens follow each
// other. A group holds head_dim / 16 fragments of 16 x 16 codes: for K the rows are tokens and the
// columns dims (S = K q), for V the rows are dims and the columns tokens (O^T = V^T P^T), both the
// A operand of mma.m16n8k16 (PTX ISA, "Matrix fragments for mma.m16n8k16"): lane 4g+t holds rows
// g, g+8 and columns 2t, 2t+1, 2t+8, 2t+9, eight codes, as registers r = 0..3 of two halves each.
inline constexpr int kTileTokens = 128;
inline constexpr int kGroupTokens = 16;  // rows of one tensor-core operand
inline constexpr int kGroups = kTileTokens / kGroupTokens;
inline constexpr int kGroupLanes = 32;

// 32-bit words of one lane and one group.
CORPUSD_HOST_DEVICE constexpr int CodedLaneWords(int bits, int head_dim) {
  return head_dim / 16 * bits / 4;
}
CORPUSD_HOST_DEVICE constexpr int CodedGroupBytes(int bits, int head_dim) {
  return CodedLaneWords(bits, head_dim) * 4 * kGroupLanes;
}
CORPUSD_HOST_DEVICE constexpr int CodedCodeBytes(int bits, int head_dim) {
  return CodedGroupBytes(bits, head_dim) * kGroups;
}
// Of a whole tile: codes, scales, means, padding.
CORPUSD_HOST_DEVICE constexpr int CodedTileBytes(int bits, int head_dim) {
  return (CodedCodeBytes(bits, head_dim) + kTileTokens + head_dim + 63) / 64 * 64;
}
// Byte offset inside a group of word `word` of `lane`, a lane having `words`: runs of 4, then 2,
// then 1 words a lane.
CORPUSD_HOST_DEVICE constexpr int CodedWordOffset(int words, int word, int lane) {
  const int whole = words / 4 * 4;
  if (word < whole) return word / 4 * 4 * 4 * kGroupLanes + lane * 16 + word % 4 * 4;
  const int rest = word - whole;
  if (words % 4 >= 2 && rest < 2) return whole * 4 * kGroupLanes + lane * 8 + rest * 4;
  return (words - 1) * 4 * kGroupLanes + lane * 4;
}
// Byte offset behind the codes of the scale of a token: rows g and g+8 are neighbours.
CORPUSD_HOST_DEVICE constexpr int CodedScaleOffset(int token) {
  return token / 16 * 16 + token % 8 * 2 + token / 8 % 2;
}

// Sizes and places of a tile of one width and head size.
template <int Bits, int Dim>
struct CodedTile {
  static_assert(Bits == 2 || Bits == 3 || Bits == 4 || Bits == 8);
  static_assert(Dim % 64 == 0);
  static constexpr int kFragments = Dim / 16;
  static constexpr int kWords = CodedLaneWords(Bits, Dim);
  static constexpr int kGroupBytes = CodedGroupBytes(Bits, Dim);
  static constexpr int kCodeBytes = CodedCodeBytes(Bits, Dim);
  static constexpr int kBytes = CodedTileBytes(Bits, Dim);

  static CORPUSD_HOST_DEVICE constexpr int WordOffset(int word, int lane) {
    return CodedWordOffset(kWords, word, lane);
  }
  static CORPUSD_HOST_DEVICE constexpr int ScaleOffset(int token) {
    return kCodeBytes + CodedScaleOffset(token);
  }
};

// A scale byte is an unsigned float with 3 bits of exponent and 5 of mantissa, 2^-5 .. 7.875:
// coordinates have unit variance. RETURNS the bits of the float.
inline constexpr int kScaleShift = 18;
inline constexpr uint32_t kScaleBase = 122u << 23;
inline constexpr int kScaleByteBias = static_cast<int>(kScaleBase >> kScaleShift);
// Added to a scale's bits before all but its byte is shifted out: to nearest, or up.
inline constexpr uint32_t kNearestScale = 1u << (kScaleShift - 1);
inline constexpr uint32_t kScaleAbove = (1u << kScaleShift) - 1;
CORPUSD_HOST_DEVICE uint32_t ScaleBits(uint32_t byte) { return (byte << kScaleShift) + kScaleBase; }

// One bit of a code: word of the lane (counted over the group) and bit in it.
struct BitPlace {
  int word, bit;
};
// Where bit `bit` of a code lies: fragment f, register r (0..3), half h (0, 1) of a lane. Halves
// are 16 bits apart, registers by what one shift and one mask can take out of a word.
CORPUSD_HOST_DEVICE constexpr BitPlace CodedPlaceOfBit(int bits, int f, int r, int h, int bit) {
  const int high_row = r & 1, high_column = r >> 1;
  if (bits == 8) return {2 * f + high_row, 8 * (2 * high_column + h) + bit};
  if (bits == 4) return {f, 4 * high_row + 8 * high_column + 16 * h + bit};
  if (bits == 2) return {f / 2, 4 * (f % 2) + 2 * high_row + 8 * high_column + 16 * h + bit};
  // 3 bits: three words hold four fragments. Each of the first three has a word: fields 0, 1, 3, 4
  // of its halves. The fourth takes field 2 of each word, and of every half the odd bit 15.
  const int base = f / 4 * 3, k = f % 4;
  if (k < 3) return {base + k, 3 * high_row + 9 * high_column + 16 * h + bit};
  if (r < 3) return {base + r, 6 + 16 * h + bit};
  return {base + bit, 15 + 16 * h};
}
template <int Bits>
CORPUSD_HOST_DEVICE constexpr BitPlace PlaceOfBit(int f, int r, int h, int bit) {
  return CodedPlaceOfBit(Bits, f, r, h, bit);
}

}  // namespace corpusd
