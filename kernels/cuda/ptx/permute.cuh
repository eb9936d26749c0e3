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

// The same number, of which the compiler knows nothing: a loop of so many rounds stays a loop.
__device__ __forceinline__ int Opaque(int x) {
  asm volatile("" : "+r"(x));
  return x;
}

}  // namespace corpusd::cuda::ptx
