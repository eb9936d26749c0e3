// kernels/cuda/page_part.cuh -- what a block of page_attention.cu does with one page: queries
// turned into the page's frame and coordinates, scores, weights, sums of values. Four warps, each
// with every fourth group of 16 tokens and a softmax of its own.
#pragma once

#include "kernels/cuda/page_attention.h"
#include "kernels/cuda/page_fragment.cuh"
#include "kernels/cuda/ptx/tensor_core.cuh"

namespace corpusd::cuda {

constexpr int kHeads = kHeadsOfBlock;
constexpr int kPartWarps = 4;
constexpr int kWarpGroups = kGroups / kPartWarps;
constexpr float kNoScore = -1e30f;
constexpr float kLog2E = 1.4426950408889634f;

// A column of the products: a query head of a row.
struct PartColumn {
  const float* q;
  int64_t position;  // of its row
};

template <int Dim>
struct PartShared {
  PartColumn columns[kHeads];
  float turned[kHeads][Dim];               // queries in the page's frame
  float coordinates[kHeads][Dim];          // of its keys
  uint32_t terms[2][kHeads][Dim / 2 + 4];  // the same as two terms of 16 bits
  float constants[kHeads];                 // what a head adds to all scores of the page
  float maxima[kPartWarps][kHeads], sums[kPartWarps][kHeads];
  float outputs[kPartWarps][kHeads][Dim];
};

// turned = scale * q, rotated by the distance from the page's first position; coordinates = turned
// * query; for the first `heads` columns. All threads of the block; those that share a dim take a
// part of its inputs each, and ask for their factors before all else.
template <int Dim>
__device__ __forceinline__ void TurnQueries(PartShared<Dim>* shared, int heads, float scale,
                                            const DeviceRope& rope, int64_t first_position,
                                            const float* basis) {
  constexpr int kTeams = kPartWarps * 32 / Dim, kInputs = Dim / kTeams, kAhead = 32;
  const uint32_t pairs = rope.cos_sin == nullptr ? 0 : rope.half_dim;
  const int j = threadIdx.x % Dim, team = threadIdx.x / Dim;
  const float* query = basis + BasisPartOffset(BasisPart::kQuery, Dim) + team * kInputs * Dim + j;
  float factors[kAhead];
#pragma unroll
  for (int i = 0; i < kAhead; ++i) factors[i] = basis == nullptr ? 0.0f : __ldg(query + i * Dim);
  __syncthreads();
  for (int i = threadIdx.x; i < kHeads * Dim / 2; i += kPartWarps * 32) {
    const int head = i / (Dim / 2), pair = i % (Dim / 2);
    float a = 0, b = 0;
    if (head < heads) {
      const PartColumn& column = shared->columns[head];
      const float x = column.q[2 * pair] * scale, y = column.q[2 * pair + 1] * scale;
      // A row may not see the page that another one does.
      const int64_t delta = max(column.position - first_position, int64_t{0});
      const float* turn = rope.cos_sin + delta * 2 * rope.half_dim;
      const float c = pair < pairs ? turn[2 * pair] : 1.0f;
      const float s = pair < pairs ? turn[2 * pair + 1] : 0.0f;
      a = x * c - y * s;
      b = y * c + x * s;
    }
    float* to = basis == nullptr ? shared->coordinates[head] : shared->turned[head];
    to[2 * pair] = a;
    to[2 * pair + 1] = b;
  }
  __syncthreads();
  if (basis == nullptr) return;
  float sums[kHeads] = {};
#pragma unroll
  for (int first = 0; first < kInputs; first += kAhead) {
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      if (h >= heads) break;
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        sums[h] = fmaf(shared->turned[h][team * kInputs + first + i], factors[i], sums[h]);
      }
    }
    if (first + kAhead >= kInputs) break;
#pragma unroll
    for (int i = 0; i < kAhead; ++i) factors[i] = __ldg(query + (first + kAhead + i) * Dim);
  }
  // The teams' parts in order.
#pragma unroll
  for (int t = 0; t < kTeams; ++t) {
    if (team == t) {
#pragma unroll
      for (int h = 0; h < kHeads; ++h) {
        shared->coordinates[h][j] = t == 0 ? sums[h] : shared->coordinates[h][j] + sums[h];
      }
    }
    __syncthreads();
  }
}

// The two terms of the queries, and what a head adds: its product with the means.
template <PageCodec Codec, int Dim>
__device__ __forceinline__ void PrepareQueries(PartShared<Dim>* shared, const uint8_t* keys,
                                               int heads, const float* basis) {
  using Group = PageGroup<Codec, Dim, true>;
  for (int i = threadIdx.x; i < kHeads * Dim / 2; i += kPartWarps * 32) {
    const int head = i / (Dim / 2), pair = i % (Dim / 2);
    const float x = shared->coordinates[head][2 * pair];
    const float y = shared->coordinates[head][2 * pair + 1];
    uint32_t high, low;
    if constexpr (Group::kBfloat) {
      high = PackBfloats(x, y);
      const float2 kept = UnpackBfloats(high);
      low = PackBfloats(x - kept.x, y - kept.y);
    } else {
      high = PackHalves(x, y);
      const float2 kept = __half22float2(HalfPair(high));
      low = PackHalves(x - kept.x, y - kept.y);
    }
    shared->terms[0][head][pair] = high;
    shared->terms[1][head][pair] = low;
  }
  Group group;
  group.Load(keys, 0);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int head = warp; head < heads; head += kPartWarps) {
    float sum = 0;
    if (basis != nullptr) {
      const float* means = basis + BasisPartOffset(BasisPart::kMeanCoordinates, Dim);
#pragma unroll
      for (int j = lane; j < Dim; j += 32) {
        sum = fmaf(shared->coordinates[head][j], group.Mean(j) + means[j], sum);
      }
    }
    for (int i = 16; i > 0; i /= 2) sum += __shfl_xor_sync(~0u, sum, i);
    if (lane == 0) shared->constants[head] = sum;
  }
  __syncthreads();
}

// A warp's softmax. Lane 4g + t has columns 2t, 2t + 1, which see slots below `visible`; scores
// value sums of dims g, g + 8 of each fragment.
template <int Dim>
struct PartState_ {
  static constexpr int kFragments = Dim / 16;
  float top[2] = {kNoScore, kNoScore}, sum[2] = {};
  float output[kFragments][4] = {};
  float score[kWarpGroups][4];  // then the weights
  float mass[2];                // of the page

  template <PageCodec Codec>
  __device__ __forceinline__ void Scores(const PartShared<Dim>& shared, const uint8_t* keys,
                                         int hidden, const int (&visible)[2]);
  __device__ __forceinline__ void Rescale();
  template <PageCodec Codec>
  __device__ __forceinline__ void AddValues(const uint8_t* values);
  __device__ __forceinline__ void Merge(PartShared<Dim>* shared);
};

template <bool Bfloat>
__device__ __forceinline__ void Multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                         uint32_t b1) {
  if constexpr (Bfloat) {
    ptx::MmaBf16(c, a, b0, b1);
  } else {
    ptx::MmaM16N8K16(c, a, b0, b1);
  }
}

template <int Dim>
template <PageCodec Codec>
__device__ __forceinline__ void PartState_<Dim>::Scores(const PartShared<Dim>& shared,
                                                        const uint8_t* keys, int hidden,
                                                        const int (&visible)[2]) {
  using Group = PageGroup<Codec, Dim, true>;
  const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  const float constants[2] = {shared.constants[2 * t], shared.constants[2 * t + 1]};
#pragma unroll
  for (int i = 0; i < kWarpGroups; ++i) {
    Group group;
    group.Load(keys, i * kPartWarps + warp);
    float c[4] = {};
#pragma unroll
    for (int f = 0; f < kFragments; ++f) {
      uint32_t a[4];
      group.Fragment(f, a);
#pragma unroll
      for (int term = 0; term < 2; ++term) {
        const uint32_t* b = shared.terms[term][g] + 8 * f + t;
        Multiply<Group::kBfloat>(c, a, b[0], b[4]);
      }
    }
    const int token = (i * kPartWarps + warp) * kGroupTokens + g;
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      const int slot = token + 8 * row;
      const float scale = group.Scale(slot);
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const bool seen = slot >= hidden && slot < visible[h];
        score[i][2 * row + h] = seen ? fmaf(c[2 * row + h], scale, constants[h]) : kNoScore;
      }
    }
  }
}

// Scores become weights against the running maximum.
template <int Dim>
__device__ __forceinline__ void PartState_<Dim>::Rescale() {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float highest = top[h];
#pragma unroll
    for (int i = 0; i < kWarpGroups; ++i) {
      highest = fmaxf(highest, fmaxf(score[i][h], score[i][2 + h]));
    }
    for (int i = 4; i < 32; i *= 2) highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, i));
    const float factor = ptx::Exp2(top[h] - highest);
    top[h] = highest;
    mass[h] = 0;
#pragma unroll
    for (int i = 0; i < kWarpGroups; ++i) {
#pragma unroll
      for (int row = 0; row < 2; ++row) {
        float& x = score[i][2 * row + h];
        x = x == kNoScore ? 0.0f : ptx::Exp2(x - highest);
        mass[h] += x;
      }
    }
    for (int i = 4; i < 32; i *= 2) mass[h] += __shfl_xor_sync(~0u, mass[h], i);
    sum[h] = fmaf(sum[h], factor, mass[h]);
#pragma unroll
    for (int f = 0; f < kFragments; ++f) output[f][h] *= factor, output[f][2 + h] *= factor;
  }
}

template <int Dim>
template <PageCodec Codec>
__device__ __forceinline__ void PartState_<Dim>::AddValues(const uint8_t* values) {
  using Group = PageGroup<Codec, Dim, false>;
  const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4;
  Group group;
#pragma unroll
  for (int i = 0; i < kWarpGroups; ++i) {
    group.Load(values, i * kPartWarps + warp);
    uint32_t b[2][2];  // [term][tokens 0-7, 8-15]
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      const float scale = group.Scale((i * kPartWarps + warp) * kGroupTokens + g + 8 * row);
      const float x = score[i][2 * row] * scale, y = score[i][2 * row + 1] * scale;
      uint32_t high, low;
      if constexpr (Group::kBfloat) {
        high = PackBfloats(x, y);
        const float2 kept = UnpackBfloats(high);
        low = PackBfloats(x - kept.x, y - kept.y);
      } else {
        high = PackHalves(x, y);
        const float2 kept = __half22float2(HalfPair(high));
        low = PackHalves(x - kept.x, y - kept.y);
      }
      b[0][row] = ptx::TransposeHalves(high);
      b[1][row] = ptx::TransposeHalves(low);
    }
#pragma unroll
    for (int f = 0; f < kFragments; ++f) {
      uint32_t a[4];
      group.Fragment(f, a);
#pragma unroll
      for (int term = 0; term < 2; ++term) {
        Multiply<Group::kBfloat>(output[f], a, b[term][0], b[term][1]);
      }
    }
  }
  if constexpr (Group::kCoded) {
#pragma unroll
    for (int f = 0; f < kFragments; ++f) {
#pragma unroll
      for (int row = 0; row < 2; ++row) {
        const float mean = group.Mean(16 * f + g + 8 * row);
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          output[f][2 * row + h] = fmaf(mass[h], mean, output[f][2 * row + h]);
        }
      }
    }
  }
}

// Puts every warp's state into shared memory.
template <int Dim>
__device__ __forceinline__ void PartState_<Dim>::Merge(PartShared<Dim>* shared) {
  const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    if (g == 0) {
      shared->maxima[warp][2 * t + h] = top[h];
      shared->sums[warp][2 * t + h] = sum[h];
    }
#pragma unroll
    for (int f = 0; f < kFragments; ++f) {
      shared->outputs[warp][2 * t + h][16 * f + g] = output[f][h];
      shared->outputs[warp][2 * t + h][16 * f + g + 8] = output[f][2 + h];
    }
  }
  __syncthreads();
}

// The state of one head of a block of `Warps` warps, theirs being in shared memory: maximum, sum,
// values. All threads of the block.
template <int Dim, int Warps, class Shared>
__device__ __forceinline__ void StorePart(float* to, const Shared& shared, int head) {
  float top = kNoScore;
#pragma unroll
  for (int w = 0; w < Warps; ++w) top = fmaxf(top, shared.maxima[w][head]);
  float factors[Warps], sum = 0;
#pragma unroll
  for (int w = 0; w < Warps; ++w) {
    factors[w] = ptx::Exp2(shared.maxima[w][head] - top);
    sum = fmaf(shared.sums[w][head], factors[w], sum);
  }
  if (threadIdx.x == 0) to[0] = top, to[1] = sum;
  for (int dim = threadIdx.x; dim < Dim; dim += Warps * 32) {
    float value = 0;
#pragma unroll
    for (int w = 0; w < Warps; ++w) value = fmaf(shared.outputs[w][head][dim], factors[w], value);
    to[2 + dim] = value;
  }
}

}  // namespace corpusd::cuda
