// kernels/cuda/coded_tile.h -- how the tensor-core kernels read a coded tile: a warp takes its
// operand of mma.m16n8k16 with 16-byte loads and turns codes into halves with one logic operation
// for two. Plain arithmetic for host and device, so that a CPU test runs the very unpacking that
// the kernel runs. Where the bits lie is kernels/coded_tile.h.
#pragma once

#include <cstdint>

#include "kernels/coded_tile.h"

namespace corpusd::cuda {

inline constexpr int kLanes = kGroupLanes;

// A code is read as the low mantissa bits of the half 1024, so its value there is
// 1024 + step * code. The step is a power of two: 1, times RowRatio in rows g+8 of a fragment,
// times FragmentStep. The kernel undoes both outside its inner loop.
inline constexpr uint32_t kHalfPair1024 = 0x64006400u;

// RETURNS the code that stands for zero: codes lie evenly around it (uniform levels).
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
