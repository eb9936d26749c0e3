#include "tests/bench/device_random.h"

#include <cuda_bf16.h>
#include <cuda_runtime.h>

namespace corpusd::cuda {
namespace {

// SplitMix64 (Steele et al. 2014), then the sum of four 16-bit parts.
__device__ __forceinline__ float Normal(uint64_t seed, uint64_t i) {
  uint64_t z = seed * 0x9e3779b97f4a7c15ull + (i + 1) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  z ^= z >> 31;
  const auto sum =
      static_cast<float>((z & 0xffff) + (z >> 16 & 0xffff) + (z >> 32 & 0xffff) + (z >> 48));
  return (sum * (1.0f / 65536) - 2.0f) * 1.7320508f;
}

__global__ void FillBfloatsKernel(uint16_t* data, size_t count, uint64_t seed) {
  const size_t step = static_cast<size_t>(gridDim.x) * blockDim.x;
  for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += step) {
    const __nv_bfloat16 value = __float2bfloat16(Normal(seed, i));
    data[i] = *reinterpret_cast<const uint16_t*>(&value);
  }
}

__global__ void FillRowsKernel(float* data, uint32_t cols, uint64_t seed) {
  float* const row = data + static_cast<size_t>(blockIdx.x) * cols;
  for (uint32_t i = threadIdx.x; i < cols; i += blockDim.x) row[i] = Normal(seed + blockIdx.x, i);
}

constexpr int kBlocks = 1056, kThreads = 256;

}  // namespace

int FillBfloats(uint16_t* data, size_t count, uint64_t seed, CUstream_st* stream) {
  FillBfloatsKernel<<<kBlocks, kThreads, 0, stream>>>(data, count, seed);
  return cudaGetLastError();
}

int FillRows(float* data, uint32_t rows, uint32_t cols, uint64_t seed, CUstream_st* stream) {
  FillRowsKernel<<<rows, kThreads, 0, stream>>>(data, cols, seed);
  return cudaGetLastError();
}

}  // namespace corpusd::cuda
