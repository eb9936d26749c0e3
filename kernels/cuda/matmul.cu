#include "kernels/cuda/matmul.h"

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "kernels/cuda/ptx/async_copy.cuh"
#include "kernels/cuda/ptx/tensor_core.cuh"

namespace corpusd::cuda {
namespace {

__device__ __forceinline__ uint32_t PackBf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// --- few rows: bound by the weight's bytes. A warp takes 16 outputs and every kFewWarps-th chunk
// of 32 inputs. The weight is the A operand, straight from memory: lane 4g + t loads inputs 8t ..
// 8t + 7 of rows g and g + 8, which the two products of a chunk take in an order of their own (the
// same for both operands, so the sum is that of the chunk). Rows of x are the columns of B, as two
// bfloat16 terms each: what is rounded off the first is the second.

constexpr int kFewWarps = 8;
constexpr int kFewOutputs = 16;
constexpr int kChunk = 32;
constexpr uint32_t kFewInputs = 2048;  // of x in shared memory at once

// x in shared memory: [term][row][stride]. Rows lie half of the banks apart, so that eight lanes,
// which read 64 bytes of two rows, meet no bank twice.
__host__ __device__ constexpr uint32_t FewStride(uint32_t inputs) {
  return inputs + (inputs % 64 == 0 ? 32 : 0);
}

template <int Tiles>
__device__ __forceinline__ void StageRows(uint16_t* shared, uint32_t stride, const DeviceMatrix& x,
                                          uint32_t first, uint32_t count) {
  constexpr uint32_t rows = 8 * Tiles;
  for (uint32_t i = threadIdx.x; i < rows * count / 4; i += blockDim.x) {
    const uint32_t row = i / (count / 4), column = i % (count / 4) * 4;
    float4 v = make_float4(0, 0, 0, 0);
    if (row < x.rows) {
      v = *reinterpret_cast<const float4*>(x.data + static_cast<size_t>(row) * x.stride + first +
                                           column);
    }
    const float in[4] = {v.x, v.y, v.z, v.w};
    uint32_t high[2], low[2];
#pragma unroll
    for (int p = 0; p < 2; ++p) {
      high[p] = PackBf16(in[2 * p], in[2 * p + 1]);
      const float a = __uint_as_float(high[p] << 16), b = __uint_as_float(high[p] & 0xFFFF0000u);
      low[p] = PackBf16(in[2 * p] - a, in[2 * p + 1] - b);
    }
    uint16_t* to = shared + row * stride + column;
    *reinterpret_cast<uint2*>(to) = make_uint2(high[0], high[1]);
    *reinterpret_cast<uint2*>(to + rows * stride) = make_uint2(low[0], low[1]);
  }
}

template <int Tiles>
__device__ __forceinline__ void FewChunk(float (&sums)[Tiles][4], const uint16_t* shared,
                                         uint32_t stride, const uint4& low_row,
                                         const uint4& high_row, int input) {
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  const uint32_t a0[4] = {low_row.x, high_row.x, low_row.y, high_row.y};
  const uint32_t a1[4] = {low_row.z, high_row.z, low_row.w, high_row.w};
#pragma unroll
  for (int tile = 0; tile < Tiles; ++tile) {
#pragma unroll
    for (int term = 0; term < 2; ++term) {
      const uint32_t row = 8 * (term * Tiles + tile) + g;
      const uint4 b = *reinterpret_cast<const uint4*>(shared + row * stride + input + 8 * t);
      ptx::MmaBf16(sums[tile], a0, b.x, b.y);
      ptx::MmaBf16(sums[tile], a1, b.z, b.w);
    }
  }
}

template <int Tiles>
__global__ void __launch_bounds__(kFewWarps * 32)
    FewRowsKernel(DeviceMatrix out, DeviceMatrix x, const uint16_t* weight, bool accumulate) {
  extern __shared__ __align__(16) uint16_t shared[];
  const uint32_t stride = FewStride(min(x.cols, kFewInputs));
  __shared__ float parts[kFewWarps][kFewOutputs][8 * Tiles + 1];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const uint16_t* low = weight + static_cast<size_t>(blockIdx.x * kFewOutputs + g) * x.cols + 8 * t;
  const uint16_t* high = low + static_cast<size_t>(8) * x.cols;
  float sums[Tiles][4] = {};
  for (uint32_t first = 0; first < x.cols; first += kFewInputs) {
    const int count = static_cast<int>(min(x.cols - first, kFewInputs));
    __syncthreads();
    StageRows<Tiles>(shared, stride, x, first, count);
    __syncthreads();
    constexpr int kAhead = 4;
    for (int c = warp * kChunk; c < count; c += kAhead * kFewWarps * kChunk) {
      uint4 rows[kAhead][2];
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        const int at = c + i * kFewWarps * kChunk;
        if (at >= count) continue;
        rows[i][0] = __ldg(reinterpret_cast<const uint4*>(low + first + at));
        rows[i][1] = __ldg(reinterpret_cast<const uint4*>(high + first + at));
      }
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        const int at = c + i * kFewWarps * kChunk;
        if (at < count) FewChunk<Tiles>(sums, shared, stride, rows[i][0], rows[i][1], at);
      }
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
    const uint32_t column = blockIdx.x * kFewOutputs + output;
    if (column >= out.cols) continue;
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kFewWarps; ++w) sum += parts[w][output][row];
    float* to = out.data + static_cast<size_t>(row) * out.stride + column;
    *to = accumulate ? *to + sum : sum;
  }
}

// --- many rows: tiles of 64 rows x 64 outputs, 32 inputs at a time, in two stages. Four warps,
// each 32 x 32. Rows of x are rounded to bfloat16 on their way into shared memory.

constexpr int kTile = 64;
constexpr int kStep = 32;
constexpr int kManyThreads = 128;
constexpr int kStride = kStep + 8;  // 80 bytes: eight rows of 16 bytes meet no bank twice

struct ManyShared {
  uint16_t x[2][kTile][kStride];
  uint16_t weight[2][kTile][kStride];
};

// What one thread brings of a step: half a row of x and half a row of the weight.
__device__ __forceinline__ void FetchRows(float4 (&v)[4], const DeviceMatrix& x, uint32_t row,
                                          uint32_t input) {
  const float* from = x.data + static_cast<size_t>(row) * x.stride + input;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    v[i] = row < x.rows ? *reinterpret_cast<const float4*>(from + 4 * i) : make_float4(0, 0, 0, 0);
  }
}

__device__ __forceinline__ void StoreRows(uint16_t* to, const float4 (&v)[4]) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint4 packed = make_uint4(
        PackBf16(v[2 * i].x, v[2 * i].y), PackBf16(v[2 * i].z, v[2 * i].w),
        PackBf16(v[2 * i + 1].x, v[2 * i + 1].y), PackBf16(v[2 * i + 1].z, v[2 * i + 1].w));
    *reinterpret_cast<uint4*>(to + 8 * i) = packed;
  }
}

__device__ __forceinline__ void MultiplyStep(float (&sums)[2][4][4], const uint16_t (*x)[kStride],
                                             const uint16_t (*weight)[kStride]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int row = warp / 2 * 32, output = warp % 2 * 32;
#pragma unroll
  for (int k = 0; k < kStep; k += 16) {
    uint32_t a[2][4], b[2][4];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      ptx::LoadMatrices(a[i], ptx::SharedAddress(&x[row + 16 * i + lane % 16][k + lane / 16 * 8]));
      ptx::LoadMatrices(
          b[i], ptx::SharedAddress(
                    &weight[output + 16 * i + lane / 16 * 8 + lane % 8][k + lane / 8 % 2 * 8]));
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        ptx::MmaBf16(sums[i][n], a[i], b[n / 2][n % 2 * 2], b[n / 2][n % 2 * 2 + 1]);
      }
    }
  }
}

__global__ void __launch_bounds__(kManyThreads)
    ManyRowsKernel(DeviceMatrix out, DeviceMatrix x, const uint16_t* weight, bool accumulate) {
  __shared__ __align__(16) ManyShared shared;
  const uint32_t first_row = blockIdx.y * kTile, first_output = blockIdx.x * kTile;
  const int own = threadIdx.x / 2, half = threadIdx.x % 2 * 16;
  const uint16_t* weight_row = weight + static_cast<size_t>(first_output + own) * x.cols + half;
  const int steps = x.cols / kStep;
  float4 v[4];
  const auto start = [&](int step) {
    FetchRows(v, x, first_row + own, step * kStep + half);
    uint16_t* to = &shared.weight[step % 2][own][half];
    ptx::CopyAsync16(to, weight_row + step * kStep, true);
    ptx::CopyAsync16(to + 8, weight_row + step * kStep + 8, true);
    ptx::CommitCopies();
  };
  float sums[2][4][4] = {};
  start(0);
  for (int step = 0; step < steps; ++step) {
    StoreRows(&shared.x[step % 2][own][half], v);
    ptx::WaitCopies<0>();
    __syncthreads();
    if (step + 1 < steps) start(step + 1);
    MultiplyStep(sums, shared.x[step % 2], shared.weight[step % 2]);
  }
  const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int n = 0; n < 4; ++n) {
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        const uint32_t row = first_row + warp / 2 * 32 + 16 * i + g + c / 2 * 8;
        const uint32_t column = first_output + warp % 2 * 32 + 8 * n + 2 * t + c % 2;
        if (row >= x.rows || column >= out.cols) continue;
        float* to = out.data + static_cast<size_t>(row) * out.stride + column;
        *to = accumulate ? *to + sums[i][n][c] : sums[i][n][c];
      }
    }
  }
}

template <int Tiles>
int LaunchFew(DeviceMatrix out, DeviceMatrix x, const uint16_t* weight, bool accumulate,
              CUstream_st* stream) {
  const uint32_t inputs = x.cols < kFewInputs ? x.cols : kFewInputs;
  const uint32_t bytes = 2 * 8 * Tiles * FewStride(inputs) * sizeof(uint16_t);
  if (const cudaError_t error = cudaFuncSetAttribute(
          FewRowsKernel<Tiles>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes)) {
    return error;
  }
  const uint32_t blocks = (out.cols + kFewOutputs - 1) / kFewOutputs;
  FewRowsKernel<Tiles><<<blocks, kFewWarps * 32, bytes, stream>>>(out, x, weight, accumulate);
  return cudaGetLastError();
}

}  // namespace

int MatMulRows(DeviceMatrix out, DeviceMatrix x, const uint16_t* weight, bool accumulate,
               CUstream_st* stream) {
  if (x.rows <= 8) return LaunchFew<1>(out, x, weight, accumulate, stream);
  if (x.rows <= kFewMatMulRows) return LaunchFew<2>(out, x, weight, accumulate, stream);
  const dim3 grid((out.cols + kTile - 1) / kTile, (x.rows + kTile - 1) / kTile);
  ManyRowsKernel<<<grid, kManyThreads, 0, stream>>>(out, x, weight, accumulate);
  return cudaGetLastError();
}

}  // namespace corpusd::cuda
