#include "kernels/cuda/elementwise.h"

#include <cuda_runtime.h>

#include "kernels/cuda/early_launch.h"
#include "kernels/cuda/ptx/dependent_launch.cuh"
#include "kernels/cuda/weight_codes.cuh"

namespace corpusd::cuda {
namespace {

constexpr int kThreads = 256;
constexpr uint32_t kLongRow = 2048;
constexpr int kLongRowThreads = 1024;

__global__ void EmbedKernel(DeviceMatrix out, WeightKind kind, DeviceWeight table,
                            const uint32_t* ids) {
  ptx::BeginBehind();
  const uint32_t id = ids[blockIdx.x];
  float* target = out.data + static_cast<size_t>(blockIdx.x) * out.stride;
  for (uint32_t i = threadIdx.x; i < out.cols; i += blockDim.x) {
    target[i] = WeightAt(kind, table, out.cols, id, i);
  }
}

// Sums in a fixed order: a thread's own numbers, the lanes of a warp, the warps.
template <int Threads>
__global__ void RmsNormKernel(DeviceMatrix out, DeviceMatrix x, const float* gain, float epsilon) {
  ptx::BeginBehind();
  __shared__ float sums[Threads / 32];
  const float* source = x.data + static_cast<size_t>(blockIdx.x) * x.stride;
  float* target = out.data + static_cast<size_t>(blockIdx.x) * out.stride;
  float sum = 0;
  for (uint32_t i = threadIdx.x; i < x.cols; i += Threads) sum = fmaf(source[i], source[i], sum);
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(~0u, sum, offset);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
  __syncthreads();
  float total = 0;
#pragma unroll
  for (int w = 0; w < Threads / 32; ++w) total += sums[w];
  const float inverse = rsqrtf(total / static_cast<float>(x.cols) + epsilon);
  for (uint32_t i = threadIdx.x; i < x.cols; i += Threads) {
    target[i] = source[i] * inverse * gain[i];
  }
}

// A warp a head, in place.
__global__ void HeadNormKernel(DeviceMatrix x, uint32_t head_dim, const float* gain,
                               float epsilon) {
  ptx::BeginBehind();
  const uint32_t heads = x.cols / head_dim;
  const uint32_t head = blockIdx.x * (kThreads / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (head >= x.rows * heads) return;
  float* numbers = x.data + static_cast<size_t>(head / heads) * x.stride + head % heads * head_dim;
  float sum = 0;
  for (uint32_t i = lane; i < head_dim; i += 32) sum = fmaf(numbers[i], numbers[i], sum);
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(~0u, sum, offset);
  const float inverse = rsqrtf(sum / static_cast<float>(head_dim) + epsilon);
  for (uint32_t i = lane; i < head_dim; i += 32) numbers[i] = numbers[i] * inverse * gain[i];
}

__global__ void ScaleRowsKernel(DeviceMatrix x, const float* factors) {
  ptx::BeginBehind();
  const uint32_t column = blockIdx.y * kThreads + threadIdx.x;
  if (column < x.cols)
    x.data[static_cast<size_t>(blockIdx.x) * x.stride + column] *= factors[blockIdx.x];
}

__global__ void AddBiasKernel(DeviceMatrix x, const float* bias) {
  ptx::BeginBehind();
  const uint32_t column = blockIdx.y * kThreads + threadIdx.x;
  if (column < x.cols) x.data[static_cast<size_t>(blockIdx.x) * x.stride + column] += bias[column];
}

__global__ void AddKernel(DeviceMatrix x, DeviceMatrix y) {
  ptx::BeginBehind();
  const uint32_t column = blockIdx.y * kThreads + threadIdx.x;
  if (column >= x.cols) return;
  x.data[static_cast<size_t>(blockIdx.x) * x.stride + column] +=
      y.data[static_cast<size_t>(blockIdx.x) * y.stride + column];
}

__global__ void GeGluKernel(DeviceMatrix out, DeviceMatrix gate_up) {
  ptx::BeginBehind();
  constexpr float kRoot = 0.7978845608f;  // sqrt(2 / pi)
  const uint32_t column = blockIdx.y * kThreads + threadIdx.x;
  if (column >= out.cols) return;
  const float* row = gate_up.data + static_cast<size_t>(blockIdx.x) * gate_up.stride;
  const float gate = row[column], up = row[out.cols + column];
  const float inner = kRoot * (gate + 0.044715f * gate * gate * gate);
  out.data[static_cast<size_t>(blockIdx.x) * out.stride + column] =
      0.5f * gate * (1 + tanhf(inner)) * up;
}

__global__ void SwiGluKernel(DeviceMatrix out, DeviceMatrix gate_up) {
  ptx::BeginBehind();
  const uint32_t column = blockIdx.y * kThreads + threadIdx.x;
  if (column >= out.cols) return;
  const float* row = gate_up.data + static_cast<size_t>(blockIdx.x) * gate_up.stride;
  const float gate = row[column], up = row[out.cols + column];
  out.data[static_cast<size_t>(blockIdx.x) * out.stride + column] =
      gate / (1.0f + __expf(-gate)) * up;
}

dim3 ColumnGrid(const DeviceMatrix& x) {
  const LaunchShape shape = ColumnLaunch(x, kThreads);
  return dim3(shape.x, shape.y);
}

}  // namespace

int EmbedRows(DeviceMatrix out, WeightKind kind, DeviceWeight table, const uint32_t* ids,
              CUstream_st* stream) {
  return LaunchEarly(EmbedKernel, out.rows, kThreads, 0, stream, out, kind, table, ids);
}

int RmsNormRows(DeviceMatrix out, DeviceMatrix x, const float* gain, float epsilon,
                CUstream_st* stream) {
  // How a row's sum is cut hangs on its length alone.
  if (x.cols < kLongRow) {
    return LaunchEarly(RmsNormKernel<kThreads>, x.rows, kThreads, 0, stream, out, x, gain, epsilon);
  }
  return LaunchEarly(RmsNormKernel<kLongRowThreads>, x.rows, kLongRowThreads, 0, stream, out, x,
                     gain, epsilon);
}

int SwiGluRows(DeviceMatrix out, DeviceMatrix gate_up, CUstream_st* stream) {
  return LaunchEarly(SwiGluKernel, ColumnGrid(out), kThreads, 0, stream, out, gate_up);
}

int GeGluRows(DeviceMatrix out, DeviceMatrix gate_up, CUstream_st* stream) {
  return LaunchEarly(GeGluKernel, ColumnGrid(out), kThreads, 0, stream, out, gate_up);
}

int NormHeads(DeviceMatrix x, uint32_t head_dim, const float* gain, float epsilon,
              CUstream_st* stream) {
  const uint32_t heads = x.rows * (x.cols / head_dim);
  const uint32_t blocks = (heads + kThreads / 32 - 1) / (kThreads / 32);
  return LaunchEarly(HeadNormKernel, blocks, kThreads, 0, stream, x, head_dim, gain, epsilon);
}

int ScaleRows(DeviceMatrix x, const float* factors, CUstream_st* stream) {
  return LaunchEarly(ScaleRowsKernel, ColumnGrid(x), kThreads, 0, stream, x, factors);
}

int AddBiasRows(DeviceMatrix x, const float* bias, CUstream_st* stream) {
  return LaunchEarly(AddBiasKernel, ColumnGrid(x), kThreads, 0, stream, x, bias);
}

int AddRows(DeviceMatrix x, DeviceMatrix y, CUstream_st* stream) {
  return LaunchEarly(AddKernel, ColumnGrid(x), kThreads, 0, stream, x, y);
}

}  // namespace corpusd::cuda
