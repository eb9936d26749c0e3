#include "kernels/cuda/expert_routing.h"

#include <cuda_runtime.h>

#include "kernels/cuda/early_launch.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/ptx/dependent_launch.cuh"

namespace corpusd::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kSortThreads = 1024;
static_assert(kRoutedExpertsMax <= kSortThreads);

// A logit and its expert as they are compared: larger logits first, then smaller numbers.
struct Candidate {
  float logit;
  uint32_t expert;
  __device__ __forceinline__ bool Before(const Candidate& other) const {
    return logit != other.logit ? logit > other.logit : expert < other.expert;
  }
};

__device__ __forceinline__ Candidate CandidateAt(const float* logits, uint32_t expert) {
  const float logit = logits[expert];
  return {isnan(logit) ? -INFINITY : logit, expert};
}

// A warp a row: the best that comes after the one chosen before, `used` times.
__global__ void RouteKernel(RoutedSlots to, DeviceMatrix logits) {
  ptx::BeginBehind();
  const uint32_t row = blockIdx.x * (kThreads / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= logits.rows) return;
  const float* numbers = logits.data + static_cast<size_t>(row) * logits.stride;
  const Candidate none{-INFINITY, 0xFFFFFFFFu};
  Candidate last{INFINITY, 0};
  for (uint32_t k = 0; k < to.used; ++k) {
    Candidate best = none;
    for (uint32_t e = lane; e < logits.cols; e += 32) {
      const Candidate here = CandidateAt(numbers, e);
      if ((k == 0 || last.Before(here)) && here.Before(best)) best = here;
    }
    for (int offset = 16; offset > 0; offset /= 2) {
      const Candidate other{__shfl_xor_sync(~0u, best.logit, offset),
                            __shfl_xor_sync(~0u, best.expert, offset)};
      if (other.Before(best)) best = other;
    }
    last = best;
    if (lane > 0) continue;
    const uint32_t slot = row * to.used + k;
    to.chosen[slot] = best.expert;
    to.factors[slot] =
        static_cast<float>(1 / (1 + exp(-static_cast<double>(numbers[best.expert]))));
  }
}

// One block: counts, where each expert's slots begin, and the tiles. Which of an expert's slots
// comes first changes no result.
__global__ void __launch_bounds__(kSortThreads)
    SortKernel(RoutedSlots to, uint32_t slots, uint32_t experts, uint32_t tiles_max) {
  ptx::BeginBehind();
  __shared__ uint32_t count[kRoutedExpertsMax], begin[kRoutedExpertsMax];
  __shared__ uint32_t first_tile[kRoutedExpertsMax + 1];
  const uint32_t own = threadIdx.x;
  count[own] = 0;
  __syncthreads();
  for (uint32_t s = own; s < slots; s += kSortThreads) atomicAdd(&count[to.chosen[s]], 1u);
  __syncthreads();
  if (own == 0) {
    uint32_t sum = 0, tiles = 0;
    for (uint32_t e = 0; e < experts; ++e) {
      begin[e] = sum;
      first_tile[e] = tiles;
      sum += count[e];
      tiles += (count[e] + to.tile_rows - 1) / to.tile_rows;
    }
    first_tile[experts] = tiles;
  }
  __syncthreads();
  if (own < experts) {
    for (uint32_t done = 0; done < count[own]; done += to.tile_rows) {
      to.tiles[first_tile[own] + done / to.tile_rows] = {own, begin[own] + done,
                                                         min(to.tile_rows, count[own] - done)};
    }
  }
  for (uint32_t t = first_tile[experts] + own; t < tiles_max; t += kSortThreads) {
    to.tiles[t] = {0, 0, 0};
  }
  __syncthreads();
  for (uint32_t s = own; s < slots; s += kSortThreads) {
    to.order[atomicAdd(&begin[to.chosen[s]], 1u)] = s;
  }
}

__global__ void AddSlotsKernel(DeviceMatrix out, DeviceMatrix results, uint32_t used) {
  ptx::BeginBehind();
  const uint32_t column = blockIdx.y * kThreads + threadIdx.x;
  if (column >= out.cols) return;
  float sum = out.data[static_cast<size_t>(blockIdx.x) * out.stride + column];
  for (uint32_t k = 0; k < used; ++k) {
    sum += results.data[(static_cast<size_t>(blockIdx.x) * used + k) * results.stride + column];
  }
  out.data[static_cast<size_t>(blockIdx.x) * out.stride + column] = sum;
}

}  // namespace

int RouteRows(const RoutedSlots& to, DeviceMatrix logits, CUstream_st* stream) {
  constexpr uint32_t kRows = kThreads / 32;
  if (const cudaError_t error = LaunchEarly(RouteKernel, (logits.rows + kRows - 1) / kRows,
                                            kThreads, 0, stream, to, logits)) {
    return error;
  }
  if (to.order == nullptr) return cudaSuccess;
  const uint32_t slots = logits.rows * to.used;
  return LaunchEarly(SortKernel, 1, kSortThreads, 0, stream, to, slots, logits.cols,
                     ExpertTilesMax(slots, logits.cols, to.tile_rows));
}

int AddSlots(DeviceMatrix out, DeviceMatrix results, uint32_t used, CUstream_st* stream) {
  const LaunchShape shape = ColumnLaunch(out, kThreads);
  return LaunchEarly(AddSlotsKernel, dim3(shape.x, shape.y), kThreads, 0, stream, out, results,
                     used);
}

}  // namespace corpusd::cuda
