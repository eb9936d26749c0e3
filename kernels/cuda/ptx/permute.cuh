// kernels/cuda/ptx/permute.cuh -- the byte permutation by its PTX name, with the mode that
// __byte_perm leaves out (PTX ISA 9.0, section prmt), and a number that the compiler cannot know.
#pragma once

#include <cstdint>

namespace corpusd::cuda::ptx {

// Byte i of the result is byte (selector >> 4 i & 7) of the eight bytes low, high, or, where the
// selector's bit 4 i + 3 is set, eight times that byte's top bit.
__device__ __forceinline__ uint32_t PermuteSigned(uint32_t low, uint32_t high, uint32_t selector) {
  uint32_t result;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(result) : "r"(low), "r"(high), "r"(selector));
  return result;
}

// The upper half of a word in the lower half of the result, whose upper half is anything: as a
// product, which does not take the place of a permutation as a shift does. Neither half may be a
// half precision number that is none (bits 10 to 14 all set).
__device__ __forceinline__ uint32_t HighHalfOfNumbers(uint32_t word) {
  uint32_t result;
  asm("{\n.reg .b16 low, high;\n.reg .b32 twice;\nmov.b32 {low, high}, %1;\n"
      "mov.b32 twice, {high, high};\nmul.rn.f16x2 %0, twice, %2;\n}\n"
      : "=r"(result)
      : "r"(word), "r"(0x3C003C00u));
  return result;
}
// The upper half of any word, as a product.
__device__ __forceinline__ uint32_t HighHalf(uint32_t word) {
  uint32_t result;
  asm("dp2a.lo.u32.u32 %0, %1, %2, 0;" : "=r"(result) : "r"(word), "r"(0x100u));
  return result;
}

// The same number, of which the compiler knows nothing: a loop of so many rounds stays a loop.
__device__ __forceinline__ int Opaque(int x) {
  asm volatile("" : "+r"(x));
  return x;
}

}  // namespace corpusd::cuda::ptx
