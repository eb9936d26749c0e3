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

// --- many rows: tiles of 32 or 64 rows x 64 outputs, 32 inputs at a time; four stages of copies
// past the registers. A warp has 32 x 32. Rows of x are rounded to bfloat16 on their way out of
// shared memory.

constexpr int kOutputs = 64;
constexpr int kStep = 32;
constexpr int kStages = 4;
constexpr int kRowFloats = kStep + 8;   // four rows of pairs meet no bank twice
constexpr int kRowWeights = kStep + 8;  // 80 bytes: nor do eight rows of 16 bytes

template <int Rows>
struct ManyStage {
  float x[Rows][kRowFloats];
  uint16_t weight[kOutputs][kRowWeights];
};

template <int Rows>
__device__ __forceinline__ void FetchStep(ManyStage<Rows>* stage, const DeviceMatrix& x,
                                          const uint16_t* weight, uint32_t first_row, int input) {
  constexpr int kThreads = 2 * Rows;
#pragma unroll
  for (int i = threadIdx.x; i < Rows * kStep / 4; i += kThreads) {
    const int row = i / (kStep / 4), column = i % (kStep / 4) * 4;
    const bool real = first_row + row < x.rows;
    const float* from =
        x.data + static_cast<size_t>(real ? first_row + row : 0) * x.stride + input + column;
    ptx::CopyAsync16(&stage->x[row][column], from, real);
  }
#pragma unroll
  for (int i = threadIdx.x; i < kOutputs * kStep / 8; i += kThreads) {
    const int row = i / (kStep / 8), column = i % (kStep / 8) * 8;
    ptx::CopyAsync16(&stage->weight[row][column],
                     weight + static_cast<size_t>(row) * x.cols + input + column, true);
  }
}

template <int Rows>
__device__ __forceinline__ void MultiplyStep(float (&sums)[2][4][4], const ManyStage<Rows>& stage) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int row = warp / 2 * 32, output = warp % 2 * 32;
#pragma unroll
  for (int k = 0; k < kStep; k += 16) {
    uint32_t a[2][4], b[2][4];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const float2 pair = *reinterpret_cast<const float2*>(
            &stage.x[row + 16 * i + g + 8 * (r & 1)][k + 2 * t + 8 * (r >> 1)]);
        a[i][r] = PackBf16(pair.x, pair.y);
      }
      ptx::LoadMatrices(
          b[i],
          ptx::SharedAddress(
              &stage.weight[output + 16 * i + lane / 16 * 8 + lane % 8][k + lane / 8 % 2 * 8]));
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

template <int Rows>
__global__ void __launch_bounds__(2 * Rows)
    ManyRowsKernel(DeviceMatrix out, DeviceMatrix x, const uint16_t* weight, bool accumulate) {
  extern __shared__ __align__(16) uint8_t memory[];
  auto* stages = reinterpret_cast<ManyStage<Rows>*>(memory);
  const uint32_t first_row = blockIdx.y * Rows, first_output = blockIdx.x * kOutputs;
  const uint16_t* rows = weight + static_cast<size_t>(first_output) * x.cols;
  const int steps = x.cols / kStep;
  for (int step = 0; step < kStages - 1; ++step) {
    if (step < steps) FetchStep<Rows>(&stages[step], x, rows, first_row, step * kStep);
    ptx::CommitCopies();
  }
  float sums[2][4][4] = {};
  for (int step = 0; step < steps; ++step) {
    ptx::WaitCopies<kStages - 2>();
    __syncthreads();
    const int ahead = step + kStages - 1;
    if (ahead < steps) {
      FetchStep<Rows>(&stages[ahead % kStages], x, rows, first_row, ahead * kStep);
    }
    ptx::CommitCopies();
    MultiplyStep<Rows>(sums, stages[step % kStages]);
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

constexpr uint32_t kManyTiles = 264;            // two for each multiprocessor of a Hopper device
constexpr uint32_t kUnaskedShared = 48 * 1024;  // what a kernel may have without being allowed more

template <int Rows>
int LaunchMany(DeviceMatrix out, DeviceMatrix x, const uint16_t* weight, bool accumulate,
               CUstream_st* stream) {
  constexpr int kBytes = kStages * sizeof(ManyStage<Rows>);
  if (kBytes > kUnaskedShared) {
    if (const cudaError_t error = cudaFuncSetAttribute(
            ManyRowsKernel<Rows>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes)) {
      return error;
    }
  }
  const dim3 grid((out.cols + kOutputs - 1) / kOutputs, (x.rows + Rows - 1) / Rows);
  ManyRowsKernel<Rows><<<grid, 2 * Rows, kBytes, stream>>>(out, x, weight, accumulate);
  return cudaGetLastError();
}

template <int Tiles>
int LaunchFew(DeviceMatrix out, DeviceMatrix x, const uint16_t* weight, bool accumulate,
              CUstream_st* stream) {
  const uint32_t inputs = x.cols < kFewInputs ? x.cols : kFewInputs;
  const uint32_t bytes = 2 * 8 * Tiles * FewStride(inputs) * sizeof(uint16_t);
  if (bytes > kUnaskedShared) {
    if (const cudaError_t error = cudaFuncSetAttribute(
            FewRowsKernel<Tiles>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes)) {
      return error;
    }
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
  // Small tiles where large ones would leave multiprocessors idle. No sum depends on it.
  const uint32_t large = (out.cols + kOutputs - 1) / kOutputs * ((x.rows + 63) / 64);
  return large < kManyTiles ? LaunchMany<32>(out, x, weight, accumulate, stream)
                            : LaunchMany<64>(out, x, weight, accumulate, stream);
}

}  // namespace corpusd::cuda
