// tests/gpu/emulated/kernels/cuda/ptx/tensor_core.cuh -- stands in for the file of that name: a
// warp's products, from the operands as its lanes hold them.
#pragma once

#include "tests/gpu/emulated/device.h"

namespace corpusd::cuda::ptx {

struct Operands {
  uint32_t a[4], b[2];
};
// One of a register's two halves, or two bfloat16, as a float.
inline float HalfOf(uint32_t word, int which) {
  __half_raw raw;
  raw.x = static_cast<unsigned short>(word >> 16 * which);
  return __half2float(__half(raw));
}
inline float BfloatOf(uint32_t word, int which) {
  return __uint_as_float(which == 0 ? word << 16 : word & 0xFFFF0000u);
}

// c += a * b; an operand's lane has PerWord neighbours along the sum in a register.
template <int PerWord, class T, class OfA, class OfB>
void MultiplyOfWarp(T (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, const OfA& of_a,
                    const OfB& of_b) {
  Operands all[32];
  emulated::Exchange(Operands{{a[0], a[1], a[2], a[3]}, {b0, b1}}, all);
  const int lane = emulated::Lane();
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + 8 * (i / 2), column = lane % 4 * 2 + i % 2;
    for (int k = 0; k < 8 * PerWord; ++k) {
      const int half = k / (4 * PerWord), t = k % (4 * PerWord) / PerWord, at = k % PerWord;
      c[i] += of_a(all[row % 8 * 4 + t].a[row / 8 + 2 * half], at) *
              of_b(all[column * 4 + t].b[half], at);
    }
  }
}
inline void MmaM16N8K16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  MultiplyOfWarp<2>(c, a, b0, b1, HalfOf, HalfOf);
}
inline int SignedByte(uint32_t word, int which) { return static_cast<int8_t>(word >> 8 * which); }
inline int UnsignedByte(uint32_t word, int which) {
  return static_cast<uint8_t>(word >> 8 * which);
}
inline void MmaBytes(int (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  MultiplyOfWarp<4>(c, a, b0, b1, UnsignedByte, SignedByte);
}
inline void MmaSignedBytes(int (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  MultiplyOfWarp<4>(c, a, b0, b1, SignedByte, SignedByte);
}
inline void MmaBf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  MultiplyOfWarp<2>(c, a, b0, b1, BfloatOf, BfloatOf);
}

inline uint32_t TransposeHalves(uint32_t pair) {
  uint32_t all[32], result = 0;
  emulated::Exchange(pair, all);
  const int g = emulated::Lane() / 4, t = emulated::Lane() % 4;
  for (int i = 0; i < 2; ++i) {
    result |= (all[(2 * t + i) * 4 + g / 2] >> 16 * (g % 2) & 0xFFFF) << 16 * i;
  }
  return result;
}

inline float Exp2(float x) { return std::exp2(x); }

}  // namespace corpusd::cuda::ptx
