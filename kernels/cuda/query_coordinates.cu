// FindCoordinates: queries times the basis of their KV head's keys, once a row, for kernels whose
// blocks would each read the whole basis: 64 KB, for all blocks together more than the L2 cache
// gives in the time of a short call.
#include <cuda_runtime.h>

#include "kernels/cuda/page_part.cuh"
#include "kernels/cuda/ptx/dependent_launch.cuh"

namespace corpusd::cuda {
namespace {

constexpr int kTeams = 4, kSlice = 32;  // warps that share a dim's inputs; dims of a block

// Block (slice of dims, KV head and eight of its query heads, row). The next kernel may begin at
// once.
template <int Dim>
__global__ void __launch_bounds__(kTeams* kSlice)
    CoordinatesKernel(const __grid_constant__ PageAttention call) {
  ptx::AdmitKernelBehind();
  __shared__ float rows[Dim][kHeads], parts[kTeams][kHeads][kSlice];
  constexpr int kOwn = Dim / kTeams;
  const int lane = threadIdx.x % kSlice, team = threadIdx.x / kSlice;
  const uint32_t group = call.q_heads / call.kv_heads, chunks = call.kv_blocks() / call.kv_heads;
  const uint32_t kv_head = blockIdx.y / chunks, first_head = blockIdx.y % chunks * kHeads;
  const int heads = min(static_cast<int>(group - first_head), kHeads);
  const int dim = blockIdx.x * kSlice + lane;
  const float* const from = call.basis.arrays + 2 * kv_head * BasisSideFloats(Dim) +
                            BasisPartOffset(BasisPart::kQuery, Dim) + team * kOwn * Dim + dim;
  float factors[kOwn];
#pragma unroll
  for (int i = 0; i < kOwn; ++i) factors[i] = __ldg(from + i * Dim);
  const float* const q = call.q.data + static_cast<size_t>(blockIdx.z) * call.q.stride +
                         (kv_head * group + first_head) * Dim;
  for (int i = threadIdx.x; i < kHeads * Dim; i += kTeams * kSlice) {
    const int head = i % kHeads, input = i / kHeads;
    rows[input][head] = head < heads ? q[head * Dim + input] * (call.scale * kLog2E) : 0.0f;
  }
  __syncthreads();
  float sums[kHeads] = {};
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      sums[h] = fmaf(rows[team * kOwn + i][h], factors[i], sums[h]);
    }
  }
#pragma unroll
  for (int h = 0; h < kHeads; ++h) parts[team][h][lane] = sums[h];
  __syncthreads();
  float* const to = call.Coordinates(blockIdx.z, blockIdx.y) + dim;
  for (int h = team; h < kHeads; h += kTeams) {
    float sum = parts[0][h][lane];
#pragma unroll
    for (int other = 1; other < kTeams; ++other) sum += parts[other][h][lane];
    to[h * Dim] = sum;
  }
}

template <int Dim>
int Launch(const PageAttention& call, CUstream_st* stream) {
  const dim3 grid(Dim / kSlice, call.kv_blocks(), call.q.rows);
  CoordinatesKernel<Dim><<<grid, kTeams * kSlice, 0, stream>>>(call);
  return cudaGetLastError();
}

}  // namespace

int FindCoordinates(const PageAttention& call, CUstream_st* stream) {
  if (call.head_dim == 64) return Launch<64>(call, stream);
  if (call.head_dim == 128) return Launch<128>(call, stream);
  return cudaErrorInvalidValue;
}

}  // namespace corpusd::cuda
