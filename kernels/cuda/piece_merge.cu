#include "kernels/cuda/piece_merge.h"

#include <cuda_runtime.h>

#include "kernels/cuda/ptx/tensor_core.cuh"

namespace corpusd::cuda {
namespace {

// Block (row, query head), a thread a dim.
__global__ void PieceMergeKernel(const __grid_constant__ PieceMerge call) {
  const uint32_t head = blockIdx.y;
  const size_t row = blockIdx.x;
  const size_t column = static_cast<size_t>(head) * call.head_dim + threadIdx.x;
  float* sum = call.log_sums.data + row * call.log_sums.stride + head;
  const float a = *sum, b = call.more_log_sums.data[row * call.more_log_sums.stride + head];
  __syncthreads();  // all have read it
  if (b == -INFINITY) return;
  float* out = call.out.data + row * call.out.stride + column;
  const float more = call.more.data[row * call.more.stride + column];
  const float top = fmaxf(a, b);
  const float weight_a = ptx::Exp2(a - top), weight_b = ptx::Exp2(b - top);
  const float both = weight_a + weight_b;
  *out = fmaf(more, weight_b / both, a == -INFINITY ? 0.0f : *out * (weight_a / both));
  if (threadIdx.x == 0) *sum = top + log2f(both);
}

}  // namespace

int MergePieces(const PieceMerge& call, CUstream_st* stream) {
  const LaunchShape shape = PieceMergeLaunch(call);
  PieceMergeKernel<<<dim3(shape.x, shape.y), call.head_dim, 0, stream>>>(call);
  return cudaGetLastError();
}

}  // namespace corpusd::cuda
