// kernels/cuda/lone_block.cuh -- the block of page_lone.cu: two parts, how their warps keep
// together, and what they leave in the workspace.
#pragma once

#include "kernels/cuda/lone_supply.cuh"

namespace corpusd::cuda {

// Keeps the warps of a block together: none begins a page before all have ended the one kPages
// before it.
struct Pace {
  static constexpr uint32_t kPages = 4;
  uint64_t ended[kPages];

  __device__ __forceinline__ void Init() {
    if (threadIdx.x < kPages) {
      ptx::InitBarrier(&ended[threadIdx.x], kLoneParts * kLoneWarps * ptx::kWarpArrivals);
    }
  }
  __device__ __forceinline__ void Wait(uint32_t page) {
    if (page >= kPages) ptx::WaitPhase(&ended[page % kPages], (page / kPages + 1) % 2);
  }
  __device__ __forceinline__ void Arrive(uint32_t page) { ptx::ArriveWarp(&ended[page % kPages]); }
};

// The states of a part's heads, each of its warps' states in shared memory. All its threads.
template <int Bits, int Dim>
__device__ __forceinline__ void StoreHeads(const PageAttention& call,
                                           const LoneShared<Bits, Dim>& shared, int thread) {
  const auto& maxima = shared.fixed.maxima;
  const auto& sums = shared.fixed.sums;
  const LongPart& part = shared.fixed.part;
  // Unrolled: so their waits are one.
#pragma unroll
  for (int k = 0; k < kHeads * Dim / kLoneThreads; ++k) {
    const int i = k * kLoneThreads + thread, head = i / Dim, dim = i % Dim;
    if (head >= part.heads) break;
    float top = kNoScore;
#pragma unroll
    for (int w = 0; w < kLoneWarps; ++w) top = fmaxf(top, maxima[w][head]);
    float sum = 0, value = 0;
#pragma unroll
    for (int w = 0; w < kLoneWarps; ++w) {
      const float factor = ptx::Exp2(maxima[w][head] - top);
      sum = fmaf(sums[w][head], factor, sum);
      value = fmaf(shared.outputs[w][head][dim], factor, value);
    }
    float* const to = part.State(call, PageKindOfBits(Bits), head);
    if (dim == 0) to[0] = top, to[1] = sum;
    to[2 + dim] = value;
  }
}

template <int Bits, int Dim>
struct LoneBlock {
  LoneShared<Bits, Dim> parts[kLoneParts];
  Pace pace;
};

}  // namespace corpusd::cuda
