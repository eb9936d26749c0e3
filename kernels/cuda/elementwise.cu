#include "kernels/cuda/elementwise.h"

#include <cuda_runtime.h>

namespace corpusd::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void EmbedKernel(DeviceMatrix out, const uint16_t* table, uint32_t table_stride,
                            const uint32_t* ids) {
  const uint32_t row = blockIdx.x;
  const uint16_t* source = table + static_cast<size_t>(ids[row]) * table_stride;
  float* target = out.data + static_cast<size_t>(row) * out.stride;
  for (uint32_t i = threadIdx.x; i < out.cols; i += blockDim.x) {
    target[i] = __uint_as_float(static_cast<uint32_t>(source[i]) << 16);
  }
}

// Sums in a fixed order: a thread's own numbers, the lanes of a warp, the warps.
__global__ void RmsNormKernel(DeviceMatrix out, DeviceMatrix x, const float* gain, float epsilon) {
  __shared__ float sums[kThreads / 32];
  const float* source = x.data + static_cast<size_t>(blockIdx.x) * x.stride;
  float* target = out.data + static_cast<size_t>(blockIdx.x) * out.stride;
  float sum = 0;
  for (uint32_t i = threadIdx.x; i < x.cols; i += kThreads) sum = fmaf(source[i], source[i], sum);
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(~0u, sum, offset);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
  __syncthreads();
  float total = 0;
#pragma unroll
  for (int w = 0; w < kThreads / 32; ++w) total += sums[w];
  const float inverse = rsqrtf(total / static_cast<float>(x.cols) + epsilon);
  for (uint32_t i = threadIdx.x; i < x.cols; i += kThreads) {
    target[i] = source[i] * inverse * gain[i];
  }
}

__global__ void SwiGluKernel(DeviceMatrix out, DeviceMatrix gate_up) {
  const uint32_t column = blockIdx.x * kThreads + threadIdx.x;
  if (column >= out.cols) return;
  const float* row = gate_up.data + static_cast<size_t>(blockIdx.y) * gate_up.stride;
  const float gate = row[column], up = row[out.cols + column];
  out.data[static_cast<size_t>(blockIdx.y) * out.stride + column] =
      gate / (1.0f + __expf(-gate)) * up;
}

}  // namespace

int EmbedRows(DeviceMatrix out, const uint16_t* table, uint32_t table_stride, const uint32_t* ids,
              CUstream_st* stream) {
  EmbedKernel<<<out.rows, kThreads, 0, stream>>>(out, table, table_stride, ids);
  return cudaGetLastError();
}

int RmsNormRows(DeviceMatrix out, DeviceMatrix x, const float* gain, float epsilon,
                CUstream_st* stream) {
  RmsNormKernel<<<x.rows, kThreads, 0, stream>>>(out, x, gain, epsilon);
  return cudaGetLastError();
}

int SwiGluRows(DeviceMatrix out, DeviceMatrix gate_up, CUstream_st* stream) {
  const dim3 grid((out.cols + kThreads - 1) / kThreads, out.rows);
  SwiGluKernel<<<grid, kThreads, 0, stream>>>(out, gate_up);
  return cudaGetLastError();
}

}  // namespace corpusd::cuda
