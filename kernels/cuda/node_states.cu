// MergeNodeStates: bound by the bytes of the states. A thread has one number of a row and head, or,
// where all of it is aligned, four.
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

constexpr uint32_t kManyThreads = 128;
constexpr uint32_t kAhead = 4;  // states that are under way

__device__ void Weigh(float& value, float weight, float other, float other_weight, float sum) {
  value = fmaf(value, weight, other * other_weight) / sum;
}

// Dim / 4 threads a row and head.
template <int Dim>
__global__ void __launch_bounds__(kManyThreads)
    MergeManyKernel(const __grid_constant__ NodeMerge call) {
  constexpr uint32_t kTeam = Dim / 4;
  __shared__ float4 values[kNodeDepthMax + 1][kManyThreads];
  __shared__ float tops[kNodeDepthMax + 1][kManyThreads];
  const uint32_t thread = threadIdx.x, dim = thread % kTeam * 4;
  const size_t item = static_cast<size_t>(blockIdx.x) * (kManyThreads / kTeam) + thread / kTeam;
  if (item >= static_cast<size_t>(call.out.rows) * call.q_heads) return;
  const auto row = static_cast<uint32_t>(item / call.q_heads);
  const auto head = static_cast<uint32_t>(item % call.q_heads);
  const float* states =
      call.states + static_cast<size_t>(row) * call.layout.output_stride + head * Dim + dim;
  const float* log_sums = call.states + call.layout.log_sums +
                          static_cast<size_t>(row) * call.layout.log_sum_stride + head;
  float4 coming[kAhead];
  float coming_sums[kAhead];
  uint32_t ahead = 0;
  const auto fetch = [&](float4& value, float& log_sum) {
    while (ahead < call.steps && call.order[ahead].node == NodeStep::kAdd) ++ahead;
    if (ahead == call.steps) return;
    const size_t node = call.order[ahead++].node * call.layout.node_floats;
    value = __ldcs(reinterpret_cast<const float4*>(states + node));
    log_sum = __ldcs(log_sums + node);
  };
#pragma unroll
  for (uint32_t i = 0; i < kAhead; ++i) fetch(coming[i], coming_sums[i]);
  values[0][thread] = make_float4(0, 0, 0, 0);
  tops[0][thread] = -INFINITY;
  for (uint32_t i = 0; i < call.steps; ++i) {
    const NodeStep step = call.order[i];
    if (step.node != NodeStep::kAdd) {
      values[step.depth][thread] = coming[0];
      tops[step.depth][thread] = coming_sums[0];
#pragma unroll
      for (uint32_t k = 0; k + 1 < kAhead; ++k) {
        coming[k] = coming[k + 1];
        coming_sums[k] = coming_sums[k + 1];
      }
      fetch(coming[kAhead - 1], coming_sums[kAhead - 1]);
      continue;
    }
    float log_sum = tops[step.depth][thread];
    const float other = tops[step.depth + 1][thread], top = fmaxf(log_sum, other);
    if (top == -INFINITY) continue;
    const float weight = exp2f(log_sum - top), other_weight = exp2f(other - top);
    const float sum = weight + other_weight;
    float4 value = values[step.depth][thread];
    const float4 more = values[step.depth + 1][thread];
    Weigh(value.x, weight, more.x, other_weight, sum);
    Weigh(value.y, weight, more.y, other_weight, sum);
    Weigh(value.z, weight, more.z, other_weight, sum);
    Weigh(value.w, weight, more.w, other_weight, sum);
    values[step.depth][thread] = value;
    tops[step.depth][thread] = top + log2f(sum);
  }
  const float log_sum = tops[0][thread];
  const float4 result = log_sum == -INFINITY ? make_float4(0, 0, 0, 0) : values[0][thread];
  float* const out = call.out.data + static_cast<size_t>(row) * call.out.stride + head * Dim + dim;
  *reinterpret_cast<float4*>(out) = result;
  if (call.log_sums.data != nullptr && dim == 0) {
    call.log_sums.data[static_cast<size_t>(row) * call.log_sums.stride + head] = log_sum;
  }
}

bool IsAligned(const void* data, uint64_t stride) {
  return reinterpret_cast<uintptr_t>(data) % sizeof(float4) == 0 && stride % 4 == 0;
}

template <int Dim>
void Merge(const NodeMerge& call, CUstream_st* stream) {
  const bool many = call.basis.arrays == nullptr && IsAligned(call.out.data, call.out.stride) &&
                    IsAligned(call.states, call.layout.node_floats) &&
                    call.layout.output_stride % 4 == 0;
  if (!many) {
    MergeStatesKernel<Dim><<<dim3(call.out.rows, call.q_heads), Dim, 0, stream>>>(call);
    return;
  }
  constexpr uint64_t kItems = kManyThreads / (Dim / 4);
  const uint64_t items = uint64_t{call.out.rows} * call.q_heads;
  const auto blocks = static_cast<uint32_t>((items + kItems - 1) / kItems);
  MergeManyKernel<Dim><<<blocks, kManyThreads, 0, stream>>>(call);
}

}  // namespace

int MergeNodeStates(const NodeMerge& call, CUstream_st* stream) {
  if (call.head_dim == 64) {
    Merge<64>(call, stream);
  } else if (call.head_dim == 128) {
    Merge<128>(call, stream);
  } else {
    return cudaErrorInvalidValue;
  }
  return cudaGetLastError();
}

}  // namespace corpusd::cuda
