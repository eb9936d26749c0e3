// kernels/cuda/level_fragment.h -- codes of the cq formats become the levels that they stand for,
// as halves in the order of the tensor core's A operand. Tables of levels lie in registers and are
// looked up four codes at a time by byte permutations. Plain arithmetic for host and device, so
// that a CPU test runs the very unpacking that the kernels run.
#pragma once

#include <cstdint>

#include "kernels/coded_levels.h"
#include "kernels/coded_tile.h"

namespace corpusd::cuda {

// Halves come as 1152 + level: the bytes 128 + level as low mantissa bits of 1024.
inline constexpr uint32_t kLevelBias = 0x64806480u;  // two halves of 1152

// Byte i of the result is byte (selector >> 4 i & 7) of the eight bytes low, high.
CORPUSD_HOST_DEVICE uint32_t PermuteBytes(uint32_t low, uint32_t high, uint32_t selector) {
#ifdef __CUDA_ARCH__
  return __byte_perm(low, high, selector);
#else
  const uint64_t bytes = static_cast<uint64_t>(high) << 32 | low;
  uint32_t result = 0;
  for (int i = 0; i < 4; ++i) {
    result |= static_cast<uint32_t>(bytes >> (selector >> 4 * i & 7) * 8 & 0xFF) << 8 * i;
  }
  return result;
#endif
}

namespace detail {
constexpr uint32_t LevelBytes(uint32_t bits, uint32_t first) {
  uint32_t bytes = 0;
  for (uint32_t i = 0; i < 4; ++i) {
    bytes |= static_cast<uint32_t>(128 + LevelOfCode(bits, (first + i) & ((1u << bits) - 1)))
             << 8 * i;
  }
  return bytes;
}
}  // namespace detail

// The bytes 128 + level of codes First .. First + 3.
template <int Bits, uint32_t First>
inline constexpr uint32_t kLevelBytes = detail::LevelBytes(Bits, First);

namespace detail {

// Bytes 0 and 1 become halves, 0x64 above each.
CORPUSD_HOST_DEVICE uint32_t SpreadBytes(uint32_t bytes) {
  return PermuteBytes(bytes, 0x64646464u, 0x4140);
}

// Codes of register r of fragment f, in bits 0 .. Bits - 1 of either half of the result.
template <int Bits, int Words>
CORPUSD_HOST_DEVICE uint32_t NarrowCodes(const uint32_t (&words)[Words], int f, int r) {
  if constexpr (Bits == 2) {
    return words[f / 2] >> (4 * (f % 2) + 2 * (r & 1) + 8 * (r >> 1)) & 0x00030003u;
  } else {
    const int base = f / 4 * 3;
    if (f % 4 < 3) return words[base + f % 4] >> (3 * (r & 1) + 9 * (r >> 1)) & 0x00070007u;
    if (r < 3) return words[base + r] >> 6 & 0x00070007u;
    return (words[base] >> 15 & 0x00010001u) | (words[base + 1] >> 14 & 0x00020002u) |
           (words[base + 2] >> 13 & 0x00040004u);
  }
}

// Four codes of 4 bits: nibbles 0 .. 3 of the codes, of which bit 3 chooses the table.
CORPUSD_HOST_DEVICE uint32_t LookUpNibbles(uint32_t codes, uint32_t tops) {
  const uint32_t low = PermuteBytes(kLevelBytes<4, 0>, kLevelBytes<4, 4>, codes);
  const uint32_t high = PermuteBytes(kLevelBytes<4, 8>, kLevelBytes<4, 12>, codes);
  const uint32_t mask = PermuteBytes(0x0000FF00u, 0, tops);
  return (low & ~mask) | (high & mask);
}

}  // namespace detail

// The four registers of fragment f, halves of 1152 + level, from the lane's words of a group.
template <int Bits, int Words>
CORPUSD_HOST_DEVICE void UnpackLevels(const uint32_t (&words)[Words], int f, uint32_t (&a)[4]) {
  if constexpr (Bits == 8) {
    a[0] = PermuteBytes(words[2 * f], 0x64646464u, 0x4140);
    a[1] = PermuteBytes(words[2 * f + 1], 0x64646464u, 0x4140);
    a[2] = PermuteBytes(words[2 * f], 0x64646464u, 0x4342);
    a[3] = PermuteBytes(words[2 * f + 1], 0x64646464u, 0x4342);
  } else if constexpr (Bits == 4) {
    // Nibble r of the lower half word is register r's first half, of the upper its second.
    const uint32_t codes = words[f] & 0x77777777u, tops = words[f] >> 3 & 0x11111111u;
    const uint32_t first = detail::LookUpNibbles(codes, tops);
    const uint32_t second = detail::LookUpNibbles(codes >> 16, tops >> 16);
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
    for (int r = 0; r < 4; ++r) {
      const auto selector = static_cast<uint32_t>(r | r << 4 | (4 + r) << 8 | (4 + r) << 12);
      a[r] = (PermuteBytes(first, second, selector) & 0x00FF00FFu) | 0x64006400u;
    }
  } else {
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
    for (int r = 0; r < 4; ++r) {
      const uint32_t codes = detail::NarrowCodes<Bits>(words, f, r);
      constexpr uint32_t kHigh = Bits == 3 ? kLevelBytes<3, 4> : 0u;
      a[r] = detail::SpreadBytes(
          PermuteBytes(kLevelBytes<Bits, 0>, kHigh, (codes | codes >> 12) & 0x77u));
    }
  }
}

}  // namespace corpusd::cuda
