// kernels/cuda/coded_tile.h -- where the bits of a coded K or V tile lie, in the order in which the
// tensor cores want them: a warp reads its operand of mma.m16n8k16 with 16-byte loads and turns
// codes into halves with one logic operation for two. Plain arithmetic for host and device; no CUDA
// header needed, so that a CPU test runs the very unpacking that the kernel runs.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define CORPUSD_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define CORPUSD_HOST_DEVICE inline
#endif

namespace corpusd::cuda {

// A tile is 128 tokens x head_dim codes of 2, 3, 4 or 8 bits, then one scale byte a token. Its 8
// groups of 16 tokens follow each other. A group holds head_dim / 16 fragments of 16 x 16 codes:
// for K the rows are tokens and the columns dims (S = K q), for V the rows are dims and the columns
// tokens (O^T = V^T P^T), both the A operand of the instruction (PTX ISA, "Matrix fragments for
// mma.m16n8k16"): lane 4g+t holds rows g, g+8 and columns 2t, 2t+1, 2t+8, 2t+9, eight codes, as
// registers r = 0..3 of two halves each.
inline constexpr int kTileTokens = 128;
inline constexpr int kGroupTokens = 16;  // rows of one tensor-core operand
inline constexpr int kGroups = kTileTokens / kGroupTokens;
inline constexpr int kLanes = 32;

// A code is read as the low mantissa bits of the half 1024, so its value there is
// 1024 + step * code. The step is a power of two: 1, times RowRatio in rows g+8 of a fragment,
// times FragmentStep. The kernel undoes both outside its inner loop.
inline constexpr uint32_t kHalfPair1024 = 0x64006400u;

// RETURNS the code that stands for zero: codes lie evenly around it.
template <int Bits>
CORPUSD_HOST_DEVICE constexpr float MidCode() {
  return static_cast<float>((1 << Bits) - 1) * 0.5f;
}
template <int Bits>
CORPUSD_HOST_DEVICE constexpr float RowRatio() {
  return Bits == 8 ? 1.f : Bits == 4 ? 16.f : Bits == 3 ? 8.f : 4.f;
}
template <int Bits>
CORPUSD_HOST_DEVICE constexpr float FragmentStep(int fragment) {
  if (Bits == 2) return fragment % 2 == 1 ? 16.f : 1.f;
  if (Bits == 3) return fragment % 4 == 3 ? 8.f : 1.f;
  return 1.f;
}

// Sizes of a tile of head_dim Dim (64 or 128), in bytes and 32-bit words.
template <int Bits, int Dim>
struct CodedTile {
  static_assert(Bits == 2 || Bits == 3 || Bits == 4 || Bits == 8);
  static_assert(Dim % 64 == 0);
  static constexpr int kFragments = Dim / 16;
  static constexpr int kWords = kFragments * Bits / 4;  // of one lane and one group
  static constexpr int kGroupBytes = kWords * 4 * kLanes;
  static constexpr int kCodeBytes = kGroupBytes * kGroups;
  static constexpr int kBytes = kCodeBytes + kTileTokens;

  // Byte offset inside a group of word `word` of `lane`: runs of 4, then 2, then 1 words a lane.
  static CORPUSD_HOST_DEVICE constexpr int WordOffset(int word, int lane) {
    const int whole = kWords / 4 * 4;
    if (word < whole) return word / 4 * 4 * 4 * kLanes + lane * 16 + word % 4 * 4;
    const int rest = word - whole;
    if (kWords % 4 >= 2 && rest < 2) return whole * 4 * kLanes + lane * 8 + rest * 4;
    return (kWords - 1) * 4 * kLanes + lane * 4;
  }
  // Byte offset in the tile of the scale byte of a token: rows g and g+8 are neighbours.
  static CORPUSD_HOST_DEVICE constexpr int ScaleOffset(int token) {
    return kCodeBytes + token / 16 * 16 + token % 8 * 2 + token / 8 % 2;
  }
};

// A scale byte is an unsigned float with 4 bits of exponent and 4 of mantissa, 2^-7 .. 1.94 * 2^8;
// the factor that the whole head shares is the caller's (in q for K, in the output for V).
CORPUSD_HOST_DEVICE uint32_t ScaleBits(uint32_t byte) {  // RETURNS the bits of the float
  return (byte << 19) + (120u << 23);
}

// One bit of a code: word of the lane (counted over the group) and bit in it.
struct BitPlace {
  int word, bit;
};
// Where bit `bit` of a code lies: fragment f, register r (0..3), half h (0, 1) of a lane. Halves
// are 16 bits apart, registers by what one shift and one mask can take out of a word.
template <int Bits>
CORPUSD_HOST_DEVICE constexpr BitPlace PlaceOfBit(int f, int r, int h, int bit) {
  const int high_row = r & 1, high_column = r >> 1;
  if (Bits == 8) return {2 * f + high_row, 8 * (2 * high_column + h) + bit};
  if (Bits == 4) return {f, 4 * high_row + 8 * high_column + 16 * h + bit};
  if (Bits == 2) return {f / 2, 4 * (f % 2) + 2 * high_row + 8 * high_column + 16 * h + bit};
  // 3 bits: three words hold four fragments. Each of the first three has a word: fields 0, 1, 3, 4
  // of its halves. The fourth takes field 2 of each word, and of every half the odd bit 15.
  const int base = f / 4 * 3, k = f % 4;
  if (k < 3) return {base + k, 3 * high_row + 9 * high_column + 16 * h + bit};
  if (r < 3) return {base + r, 6 + 16 * h + bit};
  return {base + bit, 15 + 16 * h};
}

namespace detail {
// RETURNS halves from bytes `first` and `first + 1` of the word: 0x64 above each.
template <int First>
CORPUSD_HOST_DEVICE uint32_t BytesToHalves(uint32_t word, uint32_t high) {
#ifdef __CUDA_ARCH__
  return __byte_perm(word, high, First == 0 ? 0x4140 : 0x4342);
#else
  return (high & 0xFF00FF00u) | (word >> (8 * First) & 0xFFu) |
         (word >> (8 * First + 8) & 0xFFu) << 16;
#endif
}
}  // namespace detail

// The four registers of fragment f from the lane's words of a group. magic is kHalfPair1024, kept
// opaque by the caller: a logic operation takes one immediate, which the mask needs.
template <int Bits, int Words>
CORPUSD_HOST_DEVICE void UnpackFragment(const uint32_t (&words)[Words], int f, uint32_t magic,
                                        uint32_t (&a)[4]) {
  if constexpr (Bits == 8) {
    const uint32_t high = magic | magic >> 8;
    a[0] = detail::BytesToHalves<0>(words[2 * f], high);
    a[1] = detail::BytesToHalves<0>(words[2 * f + 1], high);
    a[2] = detail::BytesToHalves<2>(words[2 * f], high);
    a[3] = detail::BytesToHalves<2>(words[2 * f + 1], high);
  } else if constexpr (Bits == 3) {
    const int base = f / 4 * 3;
    if (f % 4 < 3) {
      const uint32_t low = words[base + f % 4], high = low >> 9;
      a[0] = (low & 0x00070007u) | magic;
      a[1] = (low & 0x00380038u) | magic;
      a[2] = (high & 0x00070007u) | magic;
      a[3] = (high & 0x00380038u) | magic;
      return;
    }
    a[0] = (words[base] >> 3 & 0x00380038u) | magic;
    a[1] = (words[base + 1] & 0x01C001C0u) | magic;
    a[2] = (words[base + 2] >> 3 & 0x00380038u) | magic;
    a[3] = (words[base] >> 9 & 0x00400040u) | (words[base + 1] >> 8 & 0x00800080u) |
           (words[base + 2] >> 7 & 0x01000100u) | magic;
  } else {
    constexpr uint32_t kMask = Bits == 4 ? 0x000F000Fu : 0x00030003u;
    const int shift = Bits == 2 && f % 2 == 1 ? 4 : 0;
    const uint32_t low = words[Bits == 4 ? f : f / 2], high = low >> 8;
    a[0] = (low & kMask << shift) | magic;
    a[1] = (low & kMask << (shift + Bits)) | magic;
    a[2] = (high & kMask << shift) | magic;
    a[3] = (high & kMask << (shift + Bits)) | magic;
  }
}

}  // namespace corpusd::cuda
