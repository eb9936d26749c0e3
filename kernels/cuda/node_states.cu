// MergeNodeStates: bound by the bytes of the states; a thread has one number of a row and head.
#include "kernels/cuda/node_states.h"

#include <cuda_runtime.h>

namespace corpusd::cuda {
namespace {

// Block (row, head), a thread a dim.
template <int Dim>
__global__ void __launch_bounds__(Dim) MergeStatesKernel(const __grid_constant__ NodeMerge call) {
  __shared__ float y[Dim];
  const uint32_t row = blockIdx.x, head = blockIdx.y, dim = threadIdx.x;
  const float* states =
      call.states + static_cast<size_t>(row) * call.layout.output_stride + head * Dim + dim;
  const float* log_sums = call.states + call.layout.log_sums +
                          static_cast<size_t>(row) * call.layout.log_sum_stride + head;
  // A stack whose places are chosen at run time: every thread has a column.
  __shared__ float values[kNodeDepthMax + 1][Dim], tops[kNodeDepthMax + 1][Dim];
  values[0][dim] = 0;
  tops[0][dim] = -INFINITY;
  for (uint32_t i = 0; i < call.steps; ++i) {
    const NodeStep step = call.order[i];
    float& value = values[step.depth][dim];
    float& log_sum = tops[step.depth][dim];
    if (step.node != NodeStep::kAdd) {
      value = states[step.node * call.layout.node_floats];
      log_sum = log_sums[step.node * call.layout.node_floats];
      continue;
    }
    const float other = tops[step.depth + 1][dim], top = fmaxf(log_sum, other);
    if (top == -INFINITY) continue;
    const float weight = exp2f(log_sum - top), other_weight = exp2f(other - top);
    const float sum = weight + other_weight;
    value = fmaf(value, weight, values[step.depth + 1][dim] * other_weight) / sum;
    log_sum = top + log2f(sum);
  }
  const float log_sum = tops[0][dim];
  float result = log_sum == -INFINITY ? 0.0f : values[0][dim];
  if (call.basis.arrays != nullptr) {
    const uint32_t kv_head = head / (call.q_heads / call.kv_heads);
    const float* basis = call.basis.arrays + (2 * kv_head + 1) * BasisSideFloats(Dim);
    const float* inverse = basis + BasisPartOffset(BasisPart::kInverse, Dim);
    y[dim] = result;
    __syncthreads();
    // Quarters of the coordinates, in the order of the kernel that has all pages.
    constexpr int kQuarter = Dim / 4;
    float sum = 0;
#pragma unroll
    for (int team = 0; team < 4; ++team) {
      float part = 0;
      for (int i = team * kQuarter; i < (team + 1) * kQuarter; ++i) {
        part = fmaf(y[i], __ldg(inverse + i * Dim + dim), part);
      }
      sum = team == 0 ? part : sum + part;
    }
    sum += basis[BasisPartOffset(BasisPart::kMean, Dim) + dim];
    result = log_sum == -INFINITY ? 0.0f : sum;
  }
  call.out.data[static_cast<size_t>(row) * call.out.stride + head * Dim + dim] = result;
  if (call.log_sums.data != nullptr && dim == 0) {
    call.log_sums.data[static_cast<size_t>(row) * call.log_sums.stride + head] = log_sum;
  }
}

}  // namespace

int MergeNodeStates(const NodeMerge& call, CUstream_st* stream) {
  const dim3 grid(call.out.rows, call.q_heads);
  if (call.head_dim == 64) {
    MergeStatesKernel<64><<<grid, 64, 0, stream>>>(call);
  } else if (call.head_dim == 128) {
    MergeStatesKernel<128><<<grid, 128, 0, stream>>>(call);
  } else {
    return cudaErrorInvalidValue;
  }
  return cudaGetLastError();
}

}  // namespace corpusd::cuda
