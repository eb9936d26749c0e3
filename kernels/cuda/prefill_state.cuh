// kernels/cuda/prefill_state.cuh -- what a warpgroup of prefill_attention.cu knows of 64 rows: the
// softmax of a span of pages and the values' sums, and how spans become one. Rows are (row, head)
// pairs of a tile, all heads of a row one after the other.
#pragma once

#include "kernels/cuda/page_fragment.cuh"
#include "kernels/cuda/prefill_attention.h"
#include "kernels/cuda/ptx/tensor_core.cuh"

namespace corpusd::cuda {

constexpr int kPrefillThreads = 256;  // that compute: two warpgroups of 64 rows
// A row's reference is a score of its span; it moves up when a score passes it by so many octaves.
constexpr float kPrefillSlack = 8.0f;

// The rows of a stack: pairs [first, first + 128) of a tile and KV head.
struct PrefillStack {
  PrefillTile tile;
  uint32_t at = 0, kv_head = 0, first = 0;  // at: of the tile
  uint32_t heads = 0;                       // of a KV head

  __device__ __forceinline__ PrefillStack(const PrefillAttention& call, uint32_t which,
                                          uint32_t head, uint32_t pair)
      : tile(call.tiles[which]),
        at(which),
        kv_head(head),
        first(pair),
        heads(call.q_heads / call.kv_heads) {}
  // Where the state of a part of its spans lies.
  __device__ __forceinline__ float* State(const PrefillAttention& call, uint32_t part,
                                          uint32_t parts, int dim) const {
    const uint64_t stack =
        (uint64_t{kv_head} * call.tile_count + at) * heads + first / kPrefillStackRows;
    return call.workspace + (stack * parts + part) * PrefillStateFloats(dim);
  }
};

// Rows g and g + 8 of a warp's 16; numbers as a warpgroup's product leaves them.
template <int Dim>
struct PrefillState {
  static constexpr int kOutputs = Dim / 2;
  float output[kOutputs];
  float reference[2], sum[2];
  float factor[2];  // what the last change of the reference makes of `output`

  __device__ __forceinline__ void Clear() {
#pragma unroll
    for (int i = 0; i < kOutputs; ++i) output[i] = 0;
    reference[0] = reference[1] = -INFINITY;
    sum[0] = sum[1] = 0;
    factor[0] = factor[1] = 1;
  }
  // Scores of a page, in octaves, become weights.
  __device__ __forceinline__ void Weigh(float (&score)[64]);
  __device__ __forceinline__ void Rescale();
  // State of thread i of kPrefillThreads.
  __device__ __forceinline__ void Save(float* place, int thread) const;
  __device__ __forceinline__ void Read(const float* place, int thread);
  // This state is what comes behind `before`, and becomes both.
  __device__ __forceinline__ void Follow(const PrefillState& before);
  // The same, `before` being in memory.
  __device__ __forceinline__ void FollowSaved(const float* place, int thread);
  // Outputs are divided by their sums, and references become the sums' logarithms.
  __device__ __forceinline__ void Finish();
  // Of finished states: this one is added to what was saved of another.
  __device__ __forceinline__ void AddTo(const float* place, int thread);
  // A finished one.
  __device__ __forceinline__ void Write(const PrefillAttention& call, const PrefillStack& stack,
                                        int row) const;

 private:
  // What references become one: the factors of `before` and of this.
  __device__ __forceinline__ void Meet(const float (&other)[2], const float (&other_sum)[2],
                                       float (&theirs)[2], float (&ours)[2]);
};

template <int Dim>
__device__ __forceinline__ void PrefillState<Dim>::Weigh(float (&score)[64]) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    float high[2] = {score[2 * i], score[2 * i + 1]};
#pragma unroll
    for (int n = 1; n < 16; ++n) {
      high[0] = fmaxf(high[0], score[4 * n + 2 * i]);
      high[1] = fmaxf(high[1], score[4 * n + 2 * i + 1]);
    }
    float highest = fmaxf(high[0], high[1]);
    highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, 1));
    highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, 2));
    const bool above = highest > reference[i] + kPrefillSlack;
    factor[i] = above ? ptx::Exp2(reference[i] - highest) : 1.0f;
    if (above) reference[i] = highest;
    const float center = reference[i] == -INFINITY ? 0.0f : reference[i];
    float mass[2] = {};
#pragma unroll
    for (int n = 0; n < 16; ++n) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        float& x = score[4 * n + 2 * i + c];
        x = ptx::Exp2(x - center);
        mass[c] += x;
      }
    }
    sum[i] = fmaf(sum[i], factor[i], mass[0] + mass[1]);
  }
}

template <int Dim>
__device__ __forceinline__ void PrefillState<Dim>::Rescale() {
  if (!__any_sync(~0u, factor[0] != 1.0f || factor[1] != 1.0f)) return;
#pragma unroll
  for (int i = 0; i < kOutputs; ++i) output[i] *= factor[i / 2 % 2];
}

template <int Dim>
__device__ __forceinline__ void PrefillState<Dim>::Save(float* place, int thread) const {
  place += thread;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    place[i * kPrefillThreads] = reference[i];
    place[(2 + i) * kPrefillThreads] = sum[i];
  }
#pragma unroll
  for (int i = 0; i < kOutputs; ++i) place[(4 + i) * kPrefillThreads] = output[i];
}

template <int Dim>
__device__ __forceinline__ void PrefillState<Dim>::Read(const float* place, int thread) {
  place += thread;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    reference[i] = __ldcg(place + i * kPrefillThreads);
    sum[i] = __ldcg(place + (2 + i) * kPrefillThreads);
  }
#pragma unroll
  for (int i = 0; i < kOutputs; ++i) output[i] = __ldcg(place + (4 + i) * kPrefillThreads);
}

template <int Dim>
__device__ __forceinline__ void PrefillState<Dim>::Meet(const float (&other)[2],
                                                        const float (&other_sum)[2],
                                                        float (&theirs)[2], float (&ours)[2]) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const float highest = fmaxf(other[i], reference[i]);
    const float center = highest == -INFINITY ? 0.0f : highest;
    theirs[i] = ptx::Exp2(other[i] - center);
    ours[i] = ptx::Exp2(reference[i] - center);
    reference[i] = highest;
    sum[i] = fmaf(other_sum[i], theirs[i], sum[i] * ours[i]);
  }
}

template <int Dim>
__device__ __forceinline__ void PrefillState<Dim>::Follow(const PrefillState& before) {
  float theirs[2], ours[2];
  Meet(before.reference, before.sum, theirs, ours);
#pragma unroll
  for (int i = 0; i < kOutputs; ++i) {
    output[i] = fmaf(before.output[i], theirs[i / 2 % 2], output[i] * ours[i / 2 % 2]);
  }
}

template <int Dim>
__device__ __forceinline__ void PrefillState<Dim>::FollowSaved(const float* place, int thread) {
  place += thread;
  const float before[2] = {place[0], place[kPrefillThreads]};
  const float before_sum[2] = {place[2 * kPrefillThreads], place[3 * kPrefillThreads]};
  float theirs[2], ours[2];
  Meet(before, before_sum, theirs, ours);
#pragma unroll
  for (int i = 0; i < kOutputs; ++i) {
    output[i] =
        fmaf(place[(4 + i) * kPrefillThreads], theirs[i / 2 % 2], output[i] * ours[i / 2 % 2]);
  }
}

template <int Dim>
__device__ __forceinline__ void PrefillState<Dim>::Finish() {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    float total = sum[i];
    total += __shfl_xor_sync(~0u, total, 1);
    total += __shfl_xor_sync(~0u, total, 2);
    const float inverse = total == 0 ? 0.0f : 1.0f / total;
    reference[i] = total == 0 ? -INFINITY : reference[i] + log2f(total);
#pragma unroll
    for (int n = 0; n < Dim / 8; ++n) {
      output[4 * n + 2 * i] *= inverse;
      output[4 * n + 2 * i + 1] *= inverse;
    }
  }
}

// Number for number as node_states.cu.
template <int Dim>
__device__ __forceinline__ void PrefillState<Dim>::AddTo(const float* place, int thread) {
  place += thread;
  float theirs[2], ours[2], both[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const float before = place[i * kPrefillThreads], top = fmaxf(before, reference[i]);
    theirs[i] = top == -INFINITY ? 1.0f : exp2f(before - top);
    ours[i] = top == -INFINITY ? 0.0f : exp2f(reference[i] - top);
    both[i] = theirs[i] + ours[i];
    reference[i] = top == -INFINITY ? top : top + log2f(both[i]);
  }
#pragma unroll
  for (int i = 0; i < kOutputs; ++i) {
    const int r = i / 2 % 2;
    output[i] = fmaf(place[(4 + i) * kPrefillThreads], theirs[r], output[i] * ours[r]) / both[r];
  }
}

// row: of the stack, of which the thread has this and the eighth behind it.
template <int Dim>
__device__ __forceinline__ void PrefillState<Dim>::Write(const PrefillAttention& call,
                                                         const PrefillStack& stack, int row) const {
  const uint32_t t = threadIdx.x % 4;
  const PrefillPlace place = call.places == nullptr ? PrefillPlace{} : call.places[stack.at];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t pair = stack.first + row + 8 * i;
    if (pair >= stack.tile.rows * stack.heads) continue;
    const size_t tile_row = stack.tile.first_row + pair / stack.heads;
    const uint32_t head = stack.kv_head * stack.heads + pair % stack.heads;
    if (call.log_sums.data != nullptr && t == 0) {
      call.log_sums.data[place.log_sums + tile_row * call.log_sums.stride + head] = reference[i];
    }
    float* out = call.out.data + place.out + tile_row * call.out.stride + head * Dim + 2 * t;
#pragma unroll
    for (int n = 0; n < Dim / 8; ++n) {
      *reinterpret_cast<float2*>(out + 8 * n) =
          make_float2(output[4 * n + 2 * i], output[4 * n + 2 * i + 1]);
    }
  }
}

}  // namespace corpusd::cuda
