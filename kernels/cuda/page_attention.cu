#include "kernels/cuda/page_attention.h"

#include <cuda_runtime.h>

#include "kernels/cuda/page_part.cuh"

namespace corpusd::cuda {
namespace {

// Block (part, KV head and eight of its query heads, row).
template <int Dim>
__global__ void __launch_bounds__(kPartWarps * 32)
    PartKernel(const __grid_constant__ PageAttention call) {
  __shared__ PartShared<Dim> shared;
  const AttentionRow row = call.rows[blockIdx.z];
  if (row.pages >= kLongPages) return;
  const uint32_t each = PagesOfPart(row.pages, 1);
  const uint32_t first = blockIdx.x * each, end = min(first + each, row.pages);
  if (first >= end) return;
  const uint32_t group = call.q_heads / call.kv_heads, chunks = (group + kHeads - 1) / kHeads;
  const uint32_t kv_head = blockIdx.y / chunks, first_head = blockIdx.y % chunks * kHeads;
  const int heads = min(group - first_head, static_cast<uint32_t>(kHeads));
  const uint32_t head = kv_head * group + first_head;
  const float* basis = call.basis.arrays == nullptr
                           ? nullptr
                           : call.basis.arrays + 2 * kv_head * BasisSideFloats(Dim);
  PartState_<Dim> state;
  for (uint32_t i = first; i < end; ++i) {
    const DevicePage page = call.pages[row.first_page + i];
    const int visible = VisibleEnd(page, row.position);
    if (visible <= page.hidden) continue;
    const float* q = call.q.data + static_cast<size_t>(blockIdx.z) * call.q.stride + head * Dim;
    TurnQueries<Dim>(&shared, q, heads, call.scale * kLog2E, call.rope,
                     row.position - page.first_position, basis);
    const uint8_t* keys = KeyTile(page, call.layer, kv_head);
    const uint8_t* values = ValueTile(page, call.layer, kv_head, call.kv_heads);
    WithCodec(page.key_codec, [&](auto codec) {
      PrepareQueries<decltype(codec)::value, Dim>(&shared, keys, heads, basis);
      state.template Scores<decltype(codec)::value>(shared, keys, page.hidden, visible);
    });
    state.Rescale();
    WithCodec(page.value_codec,
              [&](auto codec) { state.template AddValues<decltype(codec)::value>(values); });
  }
  state.Merge(&shared);
  for (int h = 0; h < heads; ++h) {
    StorePart<Dim, kPartWarps>(call.State(blockIdx.z, head + h, blockIdx.x), shared, h);
  }
}

constexpr int kMergeTeams = 4;

// The largest number, or the sum, of a block, in a fixed order.
template <int Threads, bool Largest>
__device__ __forceinline__ float Reduce(float x, float* shared) {
  for (int i = 16; i > 0; i /= 2) {
    const float other = __shfl_xor_sync(~0u, x, i);
    x = Largest ? fmaxf(x, other) : x + other;
  }
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
  __syncthreads();
  x = shared[0];
#pragma unroll
  for (int w = 1; w < Threads / 32; ++w) x = Largest ? fmaxf(x, shared[w]) : x + shared[w];
  __syncthreads();
  return x;
}

// Sums the teams' numbers of a dim; the result is the first team's.
template <int Dim>
__device__ __forceinline__ float SumTeams(float x, float* shared) {
  shared[threadIdx.x] = x;
  __syncthreads();
  x = shared[threadIdx.x % Dim];
#pragma unroll
  for (int team = 1; team < kMergeTeams; ++team) x += shared[team * Dim + threadIdx.x % Dim];
  return x;
}

// Block (query head, row): the weights of the parts, a thread a part; then their values, every
// fourth part a team of Dim threads; then back to plain values, a quarter of the coordinates a
// team.
template <int Dim>
__global__ void __launch_bounds__(kMergeTeams* Dim)
    MergeKernel(const __grid_constant__ PageAttention call) {
  constexpr int kThreads = kMergeTeams * Dim, kOwn = Dim / kMergeTeams;
  __shared__ float y[Dim], weights[kPageKinds * kAttentionPartsMax];
  __shared__ float reduced[kThreads / 32], teams[kThreads];
  const AttentionRow row = call.rows[blockIdx.y];
  const uint32_t each = PagesOfPart(row.pages, call.kv_blocks());
  const uint32_t of_kind = row.pages == 0 ? 0 : (row.pages + each - 1) / each;
  const bool of_kinds = row.pages >= kLongPages;
  const uint32_t parts = of_kinds ? kPageKinds * of_kind : of_kind;
  // Kinds that no row of the call has were left out. Which they are changes no bit: a part without
  // pages has no weight.
  const auto left_out = [&](uint32_t p) {
    return of_kinds && (call.kinds >> p / of_kind & 1) == 0;
  };
  const float* states = call.State(blockIdx.y, blockIdx.x, 0);
  const int dim = threadIdx.x % Dim, team = threadIdx.x / Dim;
  const bool in_basis = call.basis.arrays != nullptr && call.log_sums.data == nullptr;
  const uint32_t kv_head = blockIdx.x / (call.q_heads / call.kv_heads);
  const float* basis = call.basis.arrays + (2 * kv_head + 1) * BasisSideFloats(Dim);
  float inverse[kOwn];  // asked for before it is needed
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    inverse[i] = in_basis ? __ldg(basis + BasisPartOffset(BasisPart::kInverse, Dim) +
                                  (team * kOwn + i) * Dim + dim)
                          : 0.0f;
  }
  float top = kNoScore, sum = 0, value = 0;
  for (uint32_t p = threadIdx.x; p < parts; p += kThreads) {
    if (!left_out(p)) top = fmaxf(top, states[p * (Dim + 2)]);
  }
  top = Reduce<kThreads, true>(top, reduced);
  for (uint32_t p = threadIdx.x; p < parts; p += kThreads) {
    if (left_out(p)) continue;
    weights[p] = ptx::Exp2(states[p * (Dim + 2)] - top);
    sum = fmaf(states[p * (Dim + 2) + 1], weights[p], sum);
  }
  sum = Reduce<kThreads, false>(sum, reduced);
#pragma unroll 8
  for (uint32_t p = team; p < parts; p += kMergeTeams) {
    if (!left_out(p)) value = fmaf(states[p * (Dim + 2) + 2 + dim], weights[p], value);
  }
  float result = SumTeams<Dim>(value, teams);
  result = sum == 0 ? 0.0f : result / sum;
  if (in_basis) {
    if (team == 0) y[dim] = result;
    __syncthreads();
    float part = 0;
#pragma unroll
    for (int i = 0; i < kOwn; ++i) part = fmaf(y[team * kOwn + i], inverse[i], part);
    result = SumTeams<Dim>(part, teams) + basis[BasisPartOffset(BasisPart::kMean, Dim) + dim];
    if (sum == 0) result = 0;
  }
  if (team > 0) return;
  if (call.log_sums.data != nullptr && dim == 0) {
    call.log_sums.data[static_cast<size_t>(blockIdx.y) * call.log_sums.stride + blockIdx.x] =
        sum == 0 ? -INFINITY : top + log2f(sum);
  }
  call.out.data[static_cast<size_t>(blockIdx.y) * call.out.stride + blockIdx.x * Dim + dim] =
      result;
}

template <int Dim>
int Launch(const PageAttention& call, CUstream_st* stream) {
  if (call.pages_max > 0 && call.pages_min < kLongPages) {
    const dim3 grid(min(call.pages_max, kAttentionPartsMax), call.kv_blocks(), call.q.rows);
    PartKernel<Dim><<<grid, kPartWarps * 32, 0, stream>>>(call);
    if (const cudaError_t error = cudaGetLastError()) return error;
  }
  if (call.pages_max >= kLongPages) {
    if (const int error = AttendLongParts(call, stream)) return error;
    if (const int error = AttendCodedParts(call, stream)) return error;
  }
  MergeKernel<Dim><<<dim3(call.q_heads, call.q.rows), kMergeTeams * Dim, 0, stream>>>(call);
  return cudaGetLastError();
}

}  // namespace

int AttendPages(const PageAttention& call, CUstream_st* stream) {
  if (call.head_dim == 64) return Launch<64>(call, stream);
  if (call.head_dim == 128) return Launch<128>(call, stream);
  return cudaErrorInvalidValue;
}

}  // namespace corpusd::cuda
