#include "kernels/cuda/page_attention.h"

#include <cuda_runtime.h>

#include "kernels/cuda/early_launch.h"
#include "kernels/cuda/page_part.cuh"
#include "kernels/cuda/ptx/dependent_launch.cuh"

namespace corpusd::cuda {
namespace {

// Rows of a block: as many as fill a product's columns with their query heads of one KV head.
CORPUSD_HOST_DEVICE constexpr uint32_t RowsOfBlock(uint32_t group) {
  return group > kHeadsOfBlock / 2 ? 1 : kHeadsOfBlock / group;
}

// Pages of a row's part.
struct PartPages {
  uint32_t first, end;  // of the row's

  __device__ __forceinline__ PartPages(const AttentionRow& row, uint32_t part) {
    const uint32_t each = row.pages >= kLongPages ? 0 : PagesOfPart(row.pages, 1);
    first = part * each, end = min(first + each, row.pages);
  }
  __device__ __forceinline__ bool empty() const { return first >= end; }
};

// Whether what two rows read of a part is the same: then a page is read and unpacked once for both.
__device__ __forceinline__ bool SharePages(const PageAttention& call, const AttentionRow& one,
                                           const AttentionRow& other, uint32_t part) {
  const PartPages pages(one, part), others(other, part);
  if (pages.first != others.first || pages.end != others.end) return false;
  for (uint32_t i = pages.first; i < pages.end; ++i) {
    const DevicePage& a = call.pages[one.first_page + i];
    const DevicePage& b = call.pages[other.first_page + i];
    if (a.bytes != b.bytes || a.first_position != b.first_position || a.tokens != b.tokens ||
        a.hidden != b.hidden) {
      return false;
    }
  }
  return true;
}

// The part of rows [first_row, end_row), which share its pages, for one KV head and the block's
// query heads of it: a column a row and head. What a column computes is what it does alone.
template <int Dim>
__device__ __forceinline__ void AttendPart(PartShared<Dim>* shared, const PageAttention& call,
                                           uint32_t first_row, uint32_t end_row, uint32_t part) {
  const uint32_t group = call.q_heads / call.kv_heads, chunks = (group + kHeads - 1) / kHeads;
  const uint32_t kv_head = blockIdx.y / chunks, first_head = blockIdx.y % chunks * kHeads;
  const uint32_t of_row = min(group - first_head, static_cast<uint32_t>(kHeads));
  const uint32_t head = kv_head * group + first_head;
  const int columns = static_cast<int>((end_row - first_row) * of_row);
  const float* basis = call.basis.arrays == nullptr
                           ? nullptr
                           : call.basis.arrays + 2 * kv_head * BasisSideFloats(Dim);
  if (threadIdx.x < kHeads) {
    // Columns without a row of their own repeat the first one's.
    const uint32_t c = threadIdx.x < columns ? threadIdx.x : 0, row = first_row + c / of_row;
    shared->columns[threadIdx.x] = {
        call.q.data + static_cast<size_t>(row) * call.q.stride + (head + c % of_row) * Dim,
        call.rows[row].position};
  }
  __syncthreads();
  const int t = threadIdx.x % 4;
  PartState_<Dim> state;
  const PartPages pages(call.rows[first_row], part);
  for (uint32_t i = pages.first; i < pages.end; ++i) {
    const DevicePage page = call.pages[call.rows[first_row].first_page + i];
    int visible[2], last = 0;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      visible[h] = VisibleEnd(page, shared->columns[2 * t + h].position);
    }
    for (int c = 0; c < columns; ++c) {
      last = max(last, VisibleEnd(page, shared->columns[c].position));
    }
    if (last <= page.hidden) continue;
    TurnQueries<Dim>(shared, columns, call.scale * kLog2E, call.rope, page.first_position, basis);
    const uint8_t* keys = KeyTile(page, call.layer, kv_head);
    const uint8_t* values = ValueTile(page, call.layer, kv_head, call.kv_heads);
    WithCodec(page.key_codec, [&](auto codec) {
      PrepareQueries<decltype(codec)::value, Dim>(shared, keys, columns, basis);
      state.template Scores<decltype(codec)::value>(*shared, keys, page.hidden, visible);
    });
    state.Rescale();
    WithCodec(page.value_codec,
              [&](auto codec) { state.template AddValues<decltype(codec)::value>(values); });
  }
  state.Merge(shared);
  for (int c = 0; c < columns; ++c) {
    StorePart<Dim, kPartWarps>(call.State(first_row + c / of_row, head + c % of_row, part), *shared,
                               c);
  }
  __syncthreads();  // before another row's columns
}

// Block (part, KV head and eight of its query heads, rows).
template <int Dim>
__global__ void __launch_bounds__(kPartWarps * 32)
    PartKernel(const __grid_constant__ PageAttention call) {
  __shared__ PartShared<Dim> shared;
  const uint32_t rows = RowsOfBlock(call.q_heads / call.kv_heads), part = blockIdx.x;
  const uint32_t end = min((blockIdx.z + 1) * rows, call.q.rows);
  for (uint32_t row = blockIdx.z * rows, next; row < end; row = next) {
    next = row + 1;
    if (PartPages(call.rows[row], part).empty()) continue;
    while (next < end && SharePages(call, call.rows[row], call.rows[next], part)) ++next;
    AttendPart<Dim>(&shared, call, row, next, part);
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
// team. Begins while the kernel before ends.
template <int Dim>
__global__ void __launch_bounds__(kMergeTeams* Dim, 1)
    MergeKernel(const __grid_constant__ PageAttention call) {
  constexpr int kThreads = kMergeTeams * Dim, kOwn = Dim / kMergeTeams;
  __shared__ float y[Dim], weights[kPageKinds * kAttentionPartsMax];
  __shared__ float reduced[kThreads / 32], teams[kThreads];
  const AttentionRow row = call.rows[blockIdx.y];
  const uint32_t each = PagesOfPart(row.pages, call.kv_blocks());
  const uint32_t of_kind = row.pages == 0 ? 0 : (row.pages + each - 1) / each;
  const bool of_kinds = row.pages >= kLongPages;
  static_assert(kAttentionPartsMax <= kThreads);
  // Kinds that no row of the call has were left out. Which they are changes no bit: a part without
  // pages has no weight, and what a thread takes of a kind does not depend on the others.
  const uint32_t kinds = of_kinds ? call.kinds : 1;
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
  ptx::AwaitKernelBefore();
  float top = kNoScore, sum = 0, value = 0;
  float2 found[kPageKinds];  // the maximum and sum of this thread's part of a kind
#pragma unroll
  for (uint32_t k = 0; k < kPageKinds; ++k) {
    found[k] = make_float2(kNoScore, 0);
    if ((kinds >> k & 1) == 0 || threadIdx.x >= of_kind) continue;
    found[k] = *reinterpret_cast<const float2*>(states + (k * of_kind + threadIdx.x) * (Dim + 2));
    top = fmaxf(top, found[k].x);
  }
  // Values of the first kind, asked for together with the maxima.
  constexpr uint32_t kAhead = 9;
  const uint32_t first_kind = kinds == 0 ? 0 : __ffs(static_cast<int>(kinds)) - 1;
  const uint32_t of_first = kinds == 0 ? 0 : of_kind;
  float ahead[kAhead];
#pragma unroll
  for (uint32_t i = 0; i < kAhead; ++i) {
    const uint32_t p = team + i * kMergeTeams;
    ahead[i] = p < of_first ? states[(first_kind * of_kind + p) * (Dim + 2) + 2 + dim] : 0.0f;
  }
  top = Reduce<kThreads, true>(top, reduced);
#pragma unroll
  for (uint32_t k = 0; k < kPageKinds; ++k) {
    if ((kinds >> k & 1) == 0 || threadIdx.x >= of_kind) continue;
    const float weight = ptx::Exp2(found[k].x - top);
    weights[k * of_kind + threadIdx.x] = weight;
    sum = fmaf(found[k].y, weight, sum);
  }
  sum = Reduce<kThreads, false>(sum, reduced);
#pragma unroll
  for (uint32_t i = 0; i < kAhead; ++i) {
    const uint32_t p = team + i * kMergeTeams;
    if (p < of_first) value = fmaf(ahead[i], weights[first_kind * of_kind + p], value);
  }
  for (uint32_t k = first_kind; k < kPageKinds; ++k) {
    if ((kinds >> k & 1) == 0) continue;
    const float* of = states + k * of_kind * (Dim + 2) + 2 + dim;
#pragma unroll 8
    for (uint32_t p = team + (k == first_kind ? kAhead * kMergeTeams : 0); p < of_kind;
         p += kMergeTeams) {
      value = fmaf(of[p * (Dim + 2)], weights[k * of_kind + p], value);
    }
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
    const uint32_t rows = RowsOfBlock(call.q_heads / call.kv_heads);
    const dim3 grid(min(call.pages_max, kAttentionPartsMax), call.kv_blocks(),
                    (call.q.rows + rows - 1) / rows);
    PartKernel<Dim><<<grid, kPartWarps * 32, 0, stream>>>(call);
    if (const cudaError_t error = cudaGetLastError()) return error;
  }
  if (call.pages_max >= kLongPages) {
    if (const int error = AttendLongParts(call, stream)) return error;
    if (const int error = AttendCodedParts(call, stream)) return error;
  }
  return LaunchEarly(MergeKernel<Dim>, dim3(call.q_heads, call.q.rows), kMergeTeams * Dim, 0,
                     stream, call);
}

}  // namespace

int AttendPages(const PageAttention& call, CUstream_st* stream) {
  if (call.head_dim == 64) return Launch<64>(call, stream);
  if (call.head_dim == 128) return Launch<128>(call, stream);
  return cudaErrorInvalidValue;
}

}  // namespace corpusd::cuda
