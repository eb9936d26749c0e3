// kernels/cuda/weight_codes.cuh -- codes of device_weight.h as numbers in a lane's registers: pairs
// of bfloat16 for the tensor core, floats for those who look at single weights. Device code only.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "kernels/cuda/device_weight.h"

namespace corpusd::cuda {

__device__ __forceinline__ uint32_t PackBf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}
__device__ __forceinline__ float LowBf16(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float HighBf16(uint32_t pair) {
  return __uint_as_float(pair & 0xFFFF0000u);
}
__device__ __forceinline__ float2 HalvesOf(uint32_t pair) {
  return __half22float2(*reinterpret_cast<const __half2*>(&pair));
}

// Codes 2 j and 2 j + 1 of a word of eight, as bfloat16, exactly.
__device__ __forceinline__ uint32_t NibblePair(uint32_t word, int j) {
  // 128 + q has q in the last bits of its mantissa.
  const uint32_t biased = (word >> (4 * j) & 0x000F000Fu) | 0x43004300u, bias = 0x43004300u;
  const __nv_bfloat162 pair = __hsub2(*reinterpret_cast<const __nv_bfloat162*>(&biased),
                                      *reinterpret_cast<const __nv_bfloat162*>(&bias));
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// Signed byte `index` of a word.
__device__ __forceinline__ float ByteCode(uint32_t word, int index) {
  return static_cast<float>(static_cast<int8_t>(word >> (8 * index)));
}
// Signed bytes 2 j and 2 j + 1 of eight, as bfloat16, exactly.
__device__ __forceinline__ uint32_t BytePair(uint2 bytes, int j) {
  const uint32_t word = j < 2 ? bytes.x : bytes.y;
  return PackBf16(ByteCode(word, 2 * j % 4), ByteCode(word, 2 * j % 4 + 1));
}

// Where number (row, input) of a weight lies; for those who look at single ones.
__device__ __forceinline__ float WeightAt(WeightKind kind, const DeviceWeight& weight,
                                          uint32_t cols, uint32_t row, uint32_t input) {
  const uint32_t lane = row % 8 * 4 + input % 32 / 8, upper = row % 16 / 8, own = input % 8;
  if (kind == WeightKind::kBf16) {
    const size_t at = static_cast<size_t>(row) * cols + input;
    return __uint_as_float(
        static_cast<uint32_t>(reinterpret_cast<const uint16_t*>(weight.codes)[at]) << 16);
  }
  if (kind == WeightKind::kGroup8) {
    const size_t unit = static_cast<size_t>(row / 16) * (cols / 32) + input / 32;
    const auto code = static_cast<int8_t>(weight.codes[unit * 512 + lane * 16 + upper * 8 + own]);
    const __half scale =
        reinterpret_cast<const __half*>(weight.scales)[unit * 16 + row % 8 * 2 + upper];
    return static_cast<float>(code) * __half2float(scale);
  }
  const size_t unit = static_cast<size_t>(row / 16) * (cols / 64) + input / 64;
  const uint32_t place = input % 64 / 32 * 2 + upper;
  const uint32_t word =
      reinterpret_cast<const uint32_t*>(weight.codes)[unit * 128 + lane * 4 + place];
  const float2 scale =
      HalvesOf(reinterpret_cast<const uint32_t*>(weight.scales)[unit * 32 + row % 8 * 4 + place]);
  return fmaf(static_cast<float>(word >> (4 * (own / 2 + own % 2 * 4)) & 15), scale.x, scale.y);
}

}  // namespace corpusd::cuda
