// PackBlocks: a model file's blocks into the units of device_weight.h.
#include <cuda_runtime.h>

#include "kernels/cuda/weight_codes.cuh"

namespace corpusd::cuda {
namespace {

constexpr int kThreads = 128;

__device__ __forceinline__ uint16_t HalfBitsAt(const uint8_t* bytes) {
  return static_cast<uint16_t>(bytes[0] | bytes[1] << 8);
}

// Code `input` of a block.
__device__ __forceinline__ int CodeAt(BlockLayout layout, const uint8_t* block, int input) {
  if (layout == BlockLayout::kQ8_0) return static_cast<int8_t>(block[2 + input]);
  const int nibbles = layout == BlockLayout::kQ4_0 ? 2 : layout == BlockLayout::kQ4_1 ? 4 : 6;
  const int byte = block[nibbles + input % 16];
  const int nibble = input < 16 ? byte & 15 : byte >> 4;
  if (layout != BlockLayout::kQ5_0) return nibble;
  return (nibble | (block[2 + input / 8] >> input % 8 & 1) << 4) - 16;
}

// A thread a block of 32 weights.
__global__ void PackKernel(WeightKind kind, BlockLayout layout, const uint8_t* blocks,
                           uint32_t rows, uint32_t cols, uint32_t first_row, uint8_t* codes,
                           uint8_t* scales) {
  const uint32_t groups = cols / kGroupInputs;
  const size_t index = static_cast<size_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= static_cast<size_t>(rows) * groups) return;
  const uint8_t* block = blocks + index * BlockBytesOf(layout);
  const uint32_t row = first_row + static_cast<uint32_t>(index / groups);
  const auto group = static_cast<uint32_t>(index % groups);
  const uint32_t upper = row % 16 / 8, lane = row % 8 * 4;
  const uint16_t scale = HalfBitsAt(block);
  if (kind == WeightKind::kGroup8) {
    const size_t unit = static_cast<size_t>(row / 16) * groups + group;
    for (int input = 0; input < 32; ++input) {
      codes[unit * 512 + (lane + input / 8) * 16 + upper * 8 + input % 8] =
          static_cast<uint8_t>(CodeAt(layout, block, input));
    }
    reinterpret_cast<uint16_t*>(scales)[unit * 16 + row % 8 * 2 + upper] = scale;
    return;
  }
  const size_t unit = static_cast<size_t>(row / 16) * (groups / 2) + group / 2;
  const uint32_t place = group % 2 * 2 + upper;
  for (int t = 0; t < 4; ++t) {
    uint32_t word = 0;
    for (int i = 0; i < 8; ++i) {
      word |= static_cast<uint32_t>(CodeAt(layout, block, 8 * t + i)) << (4 * (i / 2 + i % 2 * 4));
    }
    reinterpret_cast<uint32_t*>(codes)[unit * 128 + (lane + t) * 4 + place] = word;
  }
  const __half offset = layout == BlockLayout::kQ4_1
                            ? __ushort_as_half(HalfBitsAt(block + 2))
                            : __float2half(-8.0f * __half2float(__ushort_as_half(scale)));  // q - 8
  reinterpret_cast<uint32_t*>(scales)[unit * 32 + row % 8 * 4 + place] =
      scale | static_cast<uint32_t>(__half_as_ushort(offset)) << 16;
}

}  // namespace

int PackBlocks(WeightKind kind, BlockLayout layout, const uint8_t* blocks, uint32_t rows,
               uint32_t cols, uint32_t first_row, uint8_t* codes, uint8_t* scales,
               CUstream_st* stream) {
  const size_t count = static_cast<size_t>(rows) * (cols / kGroupInputs);
  const auto grid = static_cast<uint32_t>((count + kThreads - 1) / kThreads);
  PackKernel<<<grid, kThreads, 0, stream>>>(kind, layout, blocks, rows, cols, first_row, codes,
                                            scales);
  return cudaGetLastError();
}

}  // namespace corpusd::cuda
