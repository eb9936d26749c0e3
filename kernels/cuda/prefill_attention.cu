// AttendExpanded: a block takes stacks of 128 (row, head) pairs of one tile and KV head. One warp
// brings expanded pages, keys and values apart, into rings of shared memory by bulk copies, each
// with a message that says what of it is visible. Two warpgroups of 64 pairs each multiply: scores
// of a page and the values of the one before are under way together, and while one of the groups
// weighs its scores the tensor core works for the other.
//
// 384 threads, 168 registers each at the start (224 for those that compute), 80 or 160 KB of shared
// memory: one block a multiprocessor.
#include "kernels/cuda/prefill_attention.h"

#include <cuda_runtime.h>

#include <algorithm>

#include "kernels/cuda/prefill_supply.cuh"
#include "kernels/cuda/ptx/warpgroup.cuh"

namespace corpusd::cuda {
namespace {

constexpr int kComputingWarps = kPrefillThreads / 32;
constexpr int kBlockThreads = kPrefillThreads + 128;
constexpr float kLog2E = 1.4426950408889634f;
// Barriers of the block: a group's turn to multiply, a group's queries.
constexpr int kTurn = 2, kQueries = 4;

// A warpgroup that computes.
template <int Dim>
class Worker {
 public:
  using Shared = PrefillShared<Dim>;
  __device__ __forceinline__ Worker(const PrefillAttention& call, Shared* shared, uint32_t parts)
      : call_(call),
        shared_(shared),
        parts_(parts),
        group_(__shfl_sync(~0u, static_cast<int>(threadIdx.x / 128) - 1, 0)) {}

  __device__ __forceinline__ void Run() {
    if (group_ == 1) ptx::PassBy<kPrefillThreads>(kTurn);  // the first turn is the other's
    for (;;) {
      const PrefillMessage message = Receive();
      if (message.what == PrefillWhat::kDone) return;
      ReleaseKeys();
      const PrefillStack stack(call_, message.stack.tile, message.stack.kv_head,
                               message.stack.first);
      LoadQueries(stack);
      Attend(stack, message.stack.part);
    }
  }

 private:
  __device__ __forceinline__ int thread() const { return static_cast<int>(threadIdx.x) - 128; }
  // Of the stack; the thread's second row is the eighth behind it.
  __device__ __forceinline__ int row() const { return thread() / 32 * 16 + thread() % 32 / 4; }
  __device__ __forceinline__ PrefillMessage Receive() const {
    ptx::WaitPhase(&shared_->keys_full[keys_.stage], keys_.parity);
    return shared_->messages[keys_.stage];
  }
  __device__ __forceinline__ void ReleaseKeys() {
    ptx::ArriveWarp(&shared_->keys_empty[keys_.stage]);
    keys_.Next();
  }
  __device__ __forceinline__ void ReleaseValues() {
    ptx::ArriveWarp(&shared_->values_empty[values_.stage]);
    values_.Next();
  }

  __device__ __forceinline__ void LoadQueries(const PrefillStack& stack);
  __device__ __forceinline__ void Attend(const PrefillStack& stack, uint32_t part);
  __device__ __forceinline__ PrefillWhat AttendSpan(PrefillState<Dim>* state, const int (&rows)[2]);
  __device__ __forceinline__ void Scores(float (&score)[64]) const;
  __device__ __forceinline__ void AddValues(float (&output)[Dim / 2],
                                            const uint32_t (&weight)[32]) const;
  __device__ __forceinline__ void Hide(float (&score)[64], const PrefillMessage& message,
                                       const int (&rows)[2]) const;
  static __device__ __forceinline__ void Pack(uint32_t (&weight)[32], const float (&score)[64]) {
#pragma unroll
    for (int i = 0; i < 32; ++i) weight[i] = PackBfloats(score[2 * i], score[2 * i + 1]);
  }

  const PrefillAttention& call_;
  Shared* const shared_;
  const uint32_t parts_;
  const int group_;
  RingPlace<Shared::kStages> keys_, values_;
};

// The group's rows, scaled and turned to the common frame.
template <int Dim>
__device__ __forceinline__ void Worker<Dim>::LoadQueries(const PrefillStack& stack) {
  constexpr int kLanes = Dim / 4;  // of a row
  const int lane = thread() % 32, warp = thread() / 32 % 4, dim = lane % kLanes * 4;
  const uint32_t turned = call_.rope.cos_sin == nullptr ? 0 : 2 * call_.rope.half_dim;
  const float scale = call_.scale * kLog2E;
  ptx::SyncAt<128>(kQueries + group_);  // the rows before have been multiplied
#pragma unroll 4
  for (int r = 16 * warp + lane / kLanes; r < 16 * warp + 16; r += 32 / kLanes) {
    const uint32_t pair = stack.first + group_ * kPrefillGroupRows + r, row = pair / stack.heads;
    float4 x = make_float4(0, 0, 0, 0);
    if (row < stack.tile.rows) {
      x = *reinterpret_cast<const float4*>(
          call_.q.data + static_cast<size_t>(stack.tile.first_row + row) * call_.q.stride +
          (stack.kv_head * stack.heads + pair % stack.heads) * Dim + dim);
      x = make_float4(x.x * scale, x.y * scale, x.z * scale, x.w * scale);
      const auto* turn = reinterpret_cast<const float2*>(
          call_.rope.cos_sin + (stack.tile.first_position + row - call_.frame) * turned + dim);
      if (dim < turned) {
        const float2 by = turn[0];
        const float x0 = x.x;
        x.x = x0 * by.x - x.y * by.y;
        x.y = x.y * by.x + x0 * by.y;
      }
      if (dim + 2 < turned) {
        const float2 by = turn[1];
        const float x0 = x.z;
        x.z = x0 * by.x - x.w * by.y;
        x.w = x.w * by.x + x0 * by.y;
      }
    }
    *reinterpret_cast<uint2*>(shared_->queries[group_] + dim / 64 * kPrefillQueryBytes + r * 128 +
                              ((dim % 64 / 8) ^ (r % 8)) * 16 + dim % 8 * 2) =
        make_uint2(PackBfloats(x.x, x.y), PackBfloats(x.z, x.w));
  }
  ptx::FenceShared();
  ptx::SyncAt<128>(kQueries + group_);
}

template <int Dim>
__device__ __forceinline__ void Worker<Dim>::Scores(float (&score)[64]) const {
  const uint64_t q = ptx::SharedOperand(ptx::SharedAddress(shared_->queries[group_]), 16);
  const uint64_t k = ptx::SharedOperand(ptx::SharedAddress(shared_->keys[keys_.stage]), 16);
#pragma unroll
  for (int i = 0; i < Dim / 16; ++i) {
    const uint64_t a = q + (i / 4 * kPrefillQueryBytes + i % 4 * 32) / 16;
    const uint64_t b = k + (i / 4 * kPrefillChunkBytes + i % 4 * 32) / 16;
    if (i == 0) {
      ptx::MultiplyTransposed<false>(score, a, b);
    } else {
      ptx::MultiplyTransposed<true>(score, a, b);
    }
  }
}

template <int Dim>
__device__ __forceinline__ void Worker<Dim>::AddValues(float (&output)[Dim / 2],
                                                       const uint32_t (&weight)[32]) const {
  const uint64_t v =
      ptx::SharedOperand(ptx::SharedAddress(shared_->values[values_.stage]), kPrefillChunkBytes);
#pragma unroll
  for (int i = 0; i < kTileTokens / 16; ++i) {
    ptx::MultiplyRegisters(output, &weight[4 * i], v + i * (16 * 128 / 16));
  }
}

// rows: of the tile.
template <int Dim>
__device__ __forceinline__ void Worker<Dim>::Hide(float (&score)[64], const PrefillMessage& message,
                                                  const int (&rows)[2]) const {
  const int t = threadIdx.x % 4, window = PrefillWindow(call_);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int end = min(message.page.tokens, message.page.delta + rows[i]);
    const int begin = max(message.page.hidden, message.page.delta + rows[i] - window);
#pragma unroll
    for (int n = 0; n < 16; ++n) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const int slot = 8 * n + 2 * t + c;
        if (slot < begin || slot >= end) score[4 * n + 2 * i + c] = -INFINITY;
      }
    }
  }
}

// RETURNS what ended the span.
template <int Dim>
__device__ __forceinline__ PrefillWhat Worker<Dim>::AttendSpan(PrefillState<Dim>* state,
                                                               const int (&rows)[2]) {
  float score[64];
  uint32_t weight[32];
  state->Clear();
  PrefillMessage message = Receive();
  if (message.what == PrefillWhat::kPage) {
    ptx::FenceProducts();
    Scores(score);
    ptx::CommitProducts();
    ptx::WaitProducts<0>();
    ptx::KeepOrder(score);
    ReleaseKeys();
    if (!message.page.whole) Hide(score, message, rows);
    state->Weigh(score);
    Pack(weight, score);
    message = Receive();
    while (message.what == PrefillWhat::kPage) {
      ptx::SyncAt<kPrefillThreads>(kTurn + group_);
      ptx::KeepOrder(state->output);
      ptx::FenceProducts();
      Scores(score);
      ptx::CommitProducts();
      ptx::WaitPhase(&shared_->values_full[values_.stage], values_.parity);
      ptx::FenceProducts();
      AddValues(state->output, weight);
      ptx::CommitProducts();
      ptx::PassBy<kPrefillThreads>(kTurn + (group_ ^ 1));
      ptx::WaitProducts<1>();
      ptx::KeepOrder(score);
      ReleaseKeys();
      if (!message.page.whole) Hide(score, message, rows);
      state->Weigh(score);
      // The branch of this wait keeps the assembler from waiting for the values before it weighs.
      ptx::KeepOrder(score);
      message = Receive();
      ptx::WaitProducts<0>();
      ptx::KeepOrder(state->output);
      ReleaseValues();
      Pack(weight, score);
      state->Rescale();
    }
    ptx::WaitPhase(&shared_->values_full[values_.stage], values_.parity);
    ptx::KeepOrder(state->output);
    ptx::FenceProducts();
    AddValues(state->output, weight);
    ptx::CommitProducts();
    ptx::WaitProducts<0>();
    ptx::KeepOrder(state->output);
    ReleaseValues();
  }
  ReleaseKeys();
  return message.what;
}

template <int Dim>
__device__ __forceinline__ void Worker<Dim>::Attend(const PrefillStack& stack, uint32_t part) {
  PrefillState<Dim> state;
  const int first = static_cast<int>(stack.first) + row(), heads = static_cast<int>(stack.heads);
  const int rows[2] = {first / heads, (first + 8) / heads};
  float* const own = call_.workspace + blockIdx.x * PrefillStateFloats(Dim);
  float* const other = own + uint64_t{kPrefillBlocks} * PrefillStateFloats(Dim);
  bool begun = false, second = false;
  for (;;) {
    const PrefillWhat end = AttendSpan(&state, rows);
    if (parts_ > 1) return state.Save(stack.State(call_, part, parts_, Dim), thread());
    if (begun) state.FollowSaved(own, thread());
    begun = end == PrefillWhat::kSpanEnd;
    if (begun) {
      state.Save(own, thread());
      continue;
    }
    state.Finish();
    if (second) state.AddTo(other, thread());
    if (end == PrefillWhat::kStackEnd) return state.Write(call_, stack, row());
    state.Save(other, thread());
    second = true;
  }
}

template <int Dim>
__global__ void __launch_bounds__(kBlockThreads, 1)
    PrefillKernel(const __grid_constant__ PrefillAttention call, uint32_t parts, uint32_t* next) {
  extern __shared__ __align__(1024) uint8_t memory[];
  using Shared = PrefillShared<Dim>;
  auto& shared = *reinterpret_cast<Shared*>(memory);
  if (threadIdx.x < Shared::kStages) {
    ptx::InitBarrier(&shared.keys_full[threadIdx.x], 1);
    ptx::InitBarrier(&shared.keys_empty[threadIdx.x], kComputingWarps * ptx::kWarpArrivals);
    ptx::InitBarrier(&shared.values_full[threadIdx.x], 1);
    ptx::InitBarrier(&shared.values_empty[threadIdx.x], kComputingWarps * ptx::kWarpArrivals);
    ptx::PublishBarriers();
  }
  __syncthreads();
  if (threadIdx.x < 128) {
    ptx::LowerRegisters<56>();
    if (threadIdx.x < 32) PrefillSupplier<Dim>(call, &shared, parts).Run(next);
  } else {
    ptx::RaiseRegisters<224>();
    Worker<Dim>(call, &shared, parts).Run();
  }
}

// The spans of a stack, of which each has a state in memory. Block (stack of a tile, tile, KV
// head).
template <int Dim>
__global__ void __launch_bounds__(kPrefillThreads)
    PrefillMergeKernel(const __grid_constant__ PrefillAttention call, uint32_t parts) {
  const PrefillStack stack(call, blockIdx.y, blockIdx.z, blockIdx.x * kPrefillStackRows);
  if (stack.first >= stack.tile.rows * stack.heads) return;
  const int thread = static_cast<int>(threadIdx.x), row = thread / 32 * 16 + thread % 32 / 4;
  constexpr uint32_t kSpan = PrefillSpanPages(Dim);
  PrefillState<Dim> state;
  state.Read(stack.State(call, 0, parts, Dim), thread);
  for (uint32_t part = 1; part * kSpan < stack.tile.pages; ++part) {
    PrefillState<Dim> next;
    next.Read(stack.State(call, part, parts, Dim), thread);
    next.Follow(state);
    state = next;
  }
  state.Finish();
  state.Write(call, stack, row);
}

template <int Dim>
int Launch(const PrefillAttention& call, CUstream_st* stream) {
  constexpr int kBytes = sizeof(PrefillShared<Dim>);
  if (const cudaError_t error = cudaFuncSetAttribute(
          PrefillKernel<Dim>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes)) {
    return error;
  }
  const uint32_t parts =
      call.twice ? 1 : PrefillParts(call.tile_count, call.pages_max, call.q_heads, Dim);
  const uint32_t blocks = std::min(call.tile_count * call.q_heads * parts, kPrefillBlocks);
  auto* const next = reinterpret_cast<uint32_t*>(
      call.workspace +
      PrefillStatesFloats(call.tile_count, call.pages_max, call.q_heads, Dim, call.twice));
  if (const cudaError_t error = cudaMemsetAsync(next, 0, sizeof *next, stream)) return error;
  PrefillKernel<Dim><<<blocks, kBlockThreads, kBytes, stream>>>(call, parts, next);
  if (parts > 1) {
    const dim3 grid(call.q_heads / call.kv_heads, call.tile_count, call.kv_heads);
    PrefillMergeKernel<Dim><<<grid, kPrefillThreads, 0, stream>>>(call, parts);
  }
  return cudaGetLastError();
}

}  // namespace

int AttendExpanded(const PrefillAttention& call, CUstream_st* stream) {
  const auto aligned = [](const DeviceMatrix& matrix) {
    return reinterpret_cast<uintptr_t>(matrix.data) % 16 == 0 && matrix.stride % 4 == 0;
  };
  if (!aligned(call.q) || !aligned(call.out)) return cudaErrorMisalignedAddress;
  if (call.tile_count == 0) return cudaSuccess;
  if (call.head_dim == 64) return Launch<64>(call, stream);
  if (call.head_dim == 128) return Launch<128>(call, stream);
  return cudaErrorInvalidValue;
}

}  // namespace corpusd::cuda
