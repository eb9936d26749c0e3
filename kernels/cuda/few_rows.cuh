// kernels/cuda/few_rows.cuh -- products of at most 16 rows: bound by the weight's bytes. A warp
// takes 16 outputs and every kFewWarps-th unit of inputs. The weight is the A operand, straight
// from memory: lane 4g + t loads inputs 8t .. 8t + 7 of a group of 32 of rows g and g + 8, which
// the two products of a group take in an order of their own (the same for both operands, so the sum
// is that of the group). Rows of x are the columns of B, as two bfloat16 terms each: what is
// rounded off the first is the second. Codes are multiplied as whole numbers; a group's scale and
// offset go on its sum.
#pragma once

#include "kernels/cuda/matmul.h"
#include "kernels/cuda/ptx/dependent_launch.cuh"
#include "kernels/cuda/ptx/tensor_core.cuh"
#include "kernels/cuda/weight_codes.cuh"

namespace corpusd::cuda {

constexpr int kFewWarps = 8;
constexpr int kFewOutputs = 16;
constexpr uint32_t kFewInputs = 2048;                // a multiple of all warps' units
constexpr uint32_t kFewSharedBytes = 2 * 17 * 4096;  // of 16 rows of kFewInputs, at most

// What a kernel has in shared memory beside x: the warps' sums.
constexpr uint32_t kFewPartsBytes = kFewWarps * kFewOutputs * 17 * sizeof(float);

// x in shared memory: [term][row][stride]. Rows lie half of the banks apart, so that eight lanes,
// which read 64 bytes of two rows, meet no bank twice.
__host__ __device__ constexpr uint32_t FewStride(uint32_t inputs) {
  return inputs + (inputs % 64 == 0 ? 32 : 0);
}
// Behind it, for kGroup4: the sums of x over groups, [row][groups].
__host__ __device__ constexpr uint32_t FewBytes(uint32_t rows, uint32_t inputs) {
  return rows * (4 * FewStride(inputs) + 4 * (inputs / kGroupInputs));
}
// Of x at once: all inputs, if few rows leave room. No sum depends on it.
__host__ __device__ constexpr uint32_t FewInputs(uint32_t rows, uint32_t cols) {
  const uint32_t fit = (rows == 0 ? 1 : 16 / rows) * kFewInputs;
  return cols < fit ? cols : fit;
}

template <bool Sums>
__device__ __forceinline__ void StageRows(uint16_t* shared, uint32_t stride, const DeviceMatrix& x,
                                          uint32_t first, uint32_t count, float* sums,
                                          uint32_t groups) {
  const uint32_t quads = count / 4, total = x.rows * quads;
  for (uint32_t begin = 0; begin < total; begin += blockDim.x) {
    const uint32_t i = begin + threadIdx.x;
    const bool real = i < total;
    const uint32_t row = real ? i / quads : 0, column = real ? i % quads * 4 : 0;
    float4 v = make_float4(0, 0, 0, 0);
    if (real) {
      v = *reinterpret_cast<const float4*>(x.data + static_cast<size_t>(row) * x.stride + first +
                                           column);
      const float in[4] = {v.x, v.y, v.z, v.w};
      uint32_t high[2], low[2];
#pragma unroll
      for (int p = 0; p < 2; ++p) {
        high[p] = PackBf16(in[2 * p], in[2 * p + 1]);
        low[p] = PackBf16(in[2 * p] - LowBf16(high[p]), in[2 * p + 1] - HighBf16(high[p]));
      }
      uint16_t* to = shared + row * stride + column;
      *reinterpret_cast<uint2*>(to) = make_uint2(high[0], high[1]);
      *reinterpret_cast<uint2*>(to + x.rows * stride) = make_uint2(low[0], low[1]);
    }
    if constexpr (Sums) {  // eight lanes have a group
      float sum = (v.x + v.y) + (v.z + v.w);
#pragma unroll
      for (int offset = 1; offset < 8; offset *= 2) sum += __shfl_xor_sync(~0u, sum, offset);
      if (real && threadIdx.x % 8 == 0) sums[row * groups + column / kGroupInputs] = sum;
    }
  }
}

// Adds the product of a group of 32 inputs; a0, a1: the weights of its two halves.
template <int Tiles>
__device__ __forceinline__ void FewGroup(float (&sums)[Tiles][4], const uint16_t* shared,
                                         uint32_t stride, uint32_t rows, const uint32_t (&a0)[4],
                                         const uint32_t (&a1)[4], int input) {
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
  for (int tile = 0; tile < Tiles; ++tile) {
    const uint32_t row = 8 * tile + g;
#pragma unroll
    for (int term = 0; term < 2; ++term) {
      uint4 b = make_uint4(0, 0, 0, 0);
      if (row < rows) {
        b = *reinterpret_cast<const uint4*>(shared + (term * rows + row) * stride + input + 8 * t);
      }
      ptx::MmaBf16(sums[tile], a0, b.x, b.y);
      ptx::MmaBf16(sums[tile], a1, b.z, b.w);
    }
  }
}

// The weights of one unit in a lane's registers. kUnit: its inputs; kAhead: units on their way.
template <WeightKind Kind>
struct FewUnit;

template <>
struct FewUnit<WeightKind::kBf16> {
  static constexpr int kUnit = 32, kAhead = 4;
  uint4 low, high;
  __device__ __forceinline__ void Load(const DeviceWeight& weight, uint32_t cols,
                                       uint32_t first_output, uint32_t input) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const uint16_t* at = reinterpret_cast<const uint16_t*>(weight.codes) +
                         static_cast<size_t>(first_output + g) * cols + input + 8 * t;
    low = __ldg(reinterpret_cast<const uint4*>(at));
    high = __ldg(reinterpret_cast<const uint4*>(at + static_cast<size_t>(8) * cols));
  }
  template <int Tiles>
  __device__ __forceinline__ void Multiply(float (&sums)[Tiles][4], const uint16_t* shared,
                                           uint32_t stride, uint32_t rows, int input,
                                           const float* /*group_sums*/, uint32_t /*groups*/) const {
    const uint32_t a0[4] = {low.x, high.x, low.y, high.y};
    const uint32_t a1[4] = {low.z, high.z, low.w, high.w};
    FewGroup<Tiles>(sums, shared, stride, rows, a0, a1, input);
  }
};

template <>
struct FewUnit<WeightKind::kGroup8> {
  static constexpr int kUnit = 32, kAhead = 3;
  uint4 codes;
  uint32_t scales;
  __device__ __forceinline__ void Load(const DeviceWeight& weight, uint32_t cols,
                                       uint32_t first_output, uint32_t input) {
    const int lane = threadIdx.x % 32;
    const size_t unit =
        static_cast<size_t>(first_output / kUnitRows) * (cols / kUnit) + input / kUnit;
    codes = __ldg(reinterpret_cast<const uint4*>(weight.codes + unit * 512) + lane);
    scales = __ldg(reinterpret_cast<const uint32_t*>(weight.scales + unit * 32) + lane / 4);
  }
  template <int Tiles>
  __device__ __forceinline__ void Multiply(float (&sums)[Tiles][4], const uint16_t* shared,
                                           uint32_t stride, uint32_t rows, int input,
                                           const float* /*group_sums*/, uint32_t /*groups*/) const {
    const uint2 low = make_uint2(codes.x, codes.y), high = make_uint2(codes.z, codes.w);
    const uint32_t a0[4] = {BytePair(low, 0), BytePair(high, 0), BytePair(low, 1),
                            BytePair(high, 1)};
    const uint32_t a1[4] = {BytePair(low, 2), BytePair(high, 2), BytePair(low, 3),
                            BytePair(high, 3)};
    float group[Tiles][4] = {};
    FewGroup<Tiles>(group, shared, stride, rows, a0, a1, input);
    const float2 scale = HalvesOf(scales);
#pragma unroll
    for (int tile = 0; tile < Tiles; ++tile) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        sums[tile][i] = fmaf(group[tile][i], i < 2 ? scale.x : scale.y, sums[tile][i]);
      }
    }
  }
};

template <>
struct FewUnit<WeightKind::kGroup4> {
  static constexpr int kUnit = 64, kAhead = 3;
  uint4 codes, scales;
  __device__ __forceinline__ void Load(const DeviceWeight& weight, uint32_t cols,
                                       uint32_t first_output, uint32_t input) {
    const int lane = threadIdx.x % 32;
    const size_t unit =
        static_cast<size_t>(first_output / kUnitRows) * (cols / kUnit) + input / kUnit;
    codes = __ldg(reinterpret_cast<const uint4*>(weight.codes + unit * 512) + lane);
    scales = __ldg(reinterpret_cast<const uint4*>(weight.scales + unit * 128) + lane / 4);
  }
  template <int Tiles>
  __device__ __forceinline__ void Multiply(float (&sums)[Tiles][4], const uint16_t* shared,
                                           uint32_t stride, uint32_t rows, int input,
                                           const float* group_sums, uint32_t groups) const {
    const int t = threadIdx.x % 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint32_t low = half == 0 ? codes.x : codes.z, high = half == 0 ? codes.y : codes.w;
      const uint32_t a0[4] = {NibblePair(low, 0), NibblePair(high, 0), NibblePair(low, 1),
                              NibblePair(high, 1)};
      const uint32_t a1[4] = {NibblePair(low, 2), NibblePair(high, 2), NibblePair(low, 3),
                              NibblePair(high, 3)};
      float group[Tiles][4] = {};
      FewGroup<Tiles>(group, shared, stride, rows, a0, a1, input + 32 * half);
      const float2 scale_low = HalvesOf(half == 0 ? scales.x : scales.z);
      const float2 scale_high = HalvesOf(half == 0 ? scales.y : scales.w);
#pragma unroll
      for (int tile = 0; tile < Tiles; ++tile) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const uint32_t row = 8 * tile + 2 * t + i % 2;
          const float sum =
              row < rows ? group_sums[row * groups + input / kGroupInputs + half] : 0.0f;
          const float2 scale = i < 2 ? scale_low : scale_high;
          sums[tile][i] = fmaf(sum, scale.y, fmaf(group[tile][i], scale.x, sums[tile][i]));
        }
      }
    }
  }
};

// Block (16 outputs, slot); without experts one slot has all rows. Its first weights are on their
// way before the kernel before it has ended, unless that one chooses them.
template <WeightKind Kind, int Tiles>
__global__ void __launch_bounds__(kFewWarps * 32)
    FewRowsKernel(const __grid_constant__ MatMulCall call) {
  using Unit = FewUnit<Kind>;
  constexpr int kStride = kFewWarps * Unit::kUnit;
  extern __shared__ __align__(16) uint16_t shared[];
  __shared__ float parts[kFewWarps][kFewOutputs][8 * Tiles + 1];
  ptx::AdmitKernelBehind();
  DeviceMatrix x = call.x, out = call.out;
  DeviceWeight weight = call.weight;
  float factor = 1;
  if (call.experts.weights != nullptr) {
    ptx::AwaitKernelBefore();
    const uint32_t slot = blockIdx.y;
    weight = call.experts.weights[call.experts.chosen[slot]];
    if (call.experts.factors != nullptr) factor = call.experts.factors[slot];
    x.data += static_cast<size_t>(slot / call.experts.slots_of_row) * x.stride;
    out.data += static_cast<size_t>(slot) * out.stride;
    x.rows = 1;
  }
  const uint32_t inputs = FewInputs(x.rows, x.cols), stride = FewStride(inputs);
  const uint32_t groups = inputs / kGroupInputs, first_output = blockIdx.x * kFewOutputs;
  auto* const group_sums = reinterpret_cast<float*>(shared + 2 * x.rows * stride);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  float sums[Tiles][4] = {};
  for (uint32_t first = 0; first < x.cols; first += inputs) {
    const int count = static_cast<int>(min(x.cols - first, inputs));
    Unit units[Unit::kAhead];
    const auto load = [&](int c) {
#pragma unroll
      for (int i = 0; i < Unit::kAhead; ++i) {
        const int at = c + i * kStride;
        if (at < count) units[i].Load(weight, x.cols, first_output, first + at);
      }
    };
    load(warp * Unit::kUnit);  // on their way while x is staged
    if (first == 0) ptx::AwaitKernelBefore();
    __syncthreads();
    StageRows<Kind == WeightKind::kGroup4>(shared, stride, x, first, count, group_sums, groups);
    __syncthreads();
    for (int c = warp * Unit::kUnit; c < count; c += Unit::kAhead * kStride) {
#pragma unroll
      for (int i = 0; i < Unit::kAhead; ++i) {
        const int at = c + i * kStride;
        if (at < count) {
          units[i].template Multiply<Tiles>(sums, shared, stride, x.rows, at, group_sums, groups);
        }
      }
      load(c + Unit::kAhead * kStride);
    }
  }
#pragma unroll
  for (int tile = 0; tile < Tiles; ++tile) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      parts[warp][g + i / 2 * 8][8 * tile + 2 * t + i % 2] = sums[tile][i];
    }
  }
  __syncthreads();
  for (uint32_t i = threadIdx.x; i < kFewOutputs * x.rows; i += blockDim.x) {
    const uint32_t output = i % kFewOutputs, row = i / kFewOutputs;
    const uint32_t column = first_output + output;
    if (column >= out.cols) continue;
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kFewWarps; ++w) sum += parts[w][output][row];
    sum *= factor;
    float* to = out.data + static_cast<size_t>(row) * out.stride + column;
    *to = call.accumulate != 0 ? *to + sum : sum;
  }
}

}  // namespace corpusd::cuda
