// kernels/cuda/still_begin.cuh -- what the kernels for layers without positions (page_still.cu,
// page_lone.cu) share: how a block begins, with its queries in coordinates as integers of 16 bits
// in the order of the keys' codes; the range of weights.
#pragma once

#include "kernels/cuda/level_bytes.h"
#include "kernels/cuda/page_part.cuh"
#include "kernels/cuda/ptx/warpgroup.cuh"

namespace corpusd::cuda {

// Of shared memory, when two blocks share a multiprocessor of 228 KB.
constexpr int kStillSharedBytes = 113 * 1024;
// The largest coordinate of a block's queries is this integer at most: 256 * high + low, signed
// bytes.
constexpr float kStillLargestTerm = 32000.0f;
// Weights are 2^(score - reference). The reference is kLift octaves below the highest score when it
// is set, and set anew when a weight reaches 2^kCeiling: so halves hold a weight times the largest
// scale, and weights down to 2^-22 of the largest to full precision.
constexpr float kLift = 8.0f;
constexpr float kCeiling = 11.0f;
constexpr int kStillBeginThreads = 256;  // that share a part: a warp a head

template <int Dim>
struct StillBegin {
  static constexpr int kTeams = kStillBeginThreads / Dim;  // threads that share a dim's inputs
  float rows[Dim][kHeads];                                 // scaled queries
  float products[kTeams][kHeads][Dim];                     // the first becomes the sum
  float largest[kHeads];
};

__device__ __forceinline__ uint32_t MultiplyHalves(uint32_t x, uint32_t y) {
  return HalfBits(__hmul2(HalfPair(x), HalfPair(y)));
}
// A scale byte is the top of a half's mantissa and the bottom of its exponent.
__device__ __forceinline__ uint32_t ScaleHalves(uint32_t bytes, uint32_t selector) {
  return PermuteBytes(bytes, 0, selector) * 32 + 0x28002800u;
}

// The power of two above what the largest coordinate asks for, as what is added to a float's bits.
template <int Bits>
__device__ __forceinline__ int StillExponent(float highest) {
  const float wanted = highest * (1.0f / (LevelUnit(Bits) * kStillLargestTerm));
  return highest > 0 ? max(static_cast<int>(__float_as_uint(wanted) >> 23) - 126, -60) : 0;
}

// What 1 is worth in the integers of queries, as StillExponent says.
template <int Bits>
__device__ __forceinline__ float StillInverse(int exponent) {
  return __uint_as_float(static_cast<uint32_t>(127 - exponent) << 23) * (1.0f / LevelUnit(Bits));
}

// The B operands of a head's 32 coordinates 8 n + 2 t + c, in integers: high bytes, then low, in
// the order that KeyColumn says.
template <int Bits>
__device__ __forceinline__ uint4 StillTerms(const float (&x)[4][2], float inverse) {
  uint32_t u[4][2];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    u[i / 2][i % 2] = static_cast<uint32_t>(__float2int_rn(x[i / 2][i % 2] * inverse) + 128);
  }
  uint4 terms;
  if constexpr (Bits == 8) {
    SplitBytes(u[0][0], u[0][1], u[1][0], u[1][1], &terms.x, &terms.z);
    SplitBytes(u[2][0], u[2][1], u[3][0], u[3][1], &terms.y, &terms.w);
  } else {
    SplitBytes(u[0][0], u[2][0], u[1][0], u[3][0], &terms.x, &terms.z);
    SplitBytes(u[0][1], u[2][1], u[1][1], u[3][1], &terms.y, &terms.w);
  }
  return terms;
}

// Fills of `Shared` what comes from the queries and the basis. All threads of the block; a barrier
// must follow.
template <int Bits, int Dim, class Shared>
__device__ __forceinline__ void BeginStill(Shared* shared, const float* q, int heads, float scale,
                                           const float* basis) {
  auto& [rows, products, largest] = shared->Begin();
  auto& fixed = shared->fixed;
  constexpr int kTeams = StillBegin<Dim>::kTeams, kOwn = Dim / kTeams;
  constexpr int kAhead = kOwn < 32 ? kOwn : 32;  // factors that are asked for together
  const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
  const int j = thread % Dim, team = thread / Dim;
  const float* from = basis + BasisPartOffset(BasisPart::kQuery, Dim) + team * kOwn * Dim + j;
  float factors[kAhead];  // the first before all else
#pragma unroll
  for (int i = 0; i < kAhead; ++i) factors[i] = __ldg(from + i * Dim);
  for (int i = thread; i < kHeads * Dim; i += kStillBeginThreads) {
    rows[i % Dim][i / Dim] = i < heads * Dim ? q[i] * scale : 0.0f;
  }
  if (thread < 2) {
    fixed.table[thread] = MakeLevelTable<Bits>();
    fixed.key_table[thread] = MakeLevelTable<Bits>();
    if (Bits < 4) {
      fixed.key_table[thread].words[0] ^= 0x80808080u;
      fixed.key_table[thread].words[1] ^= 0x80808080u;
    }
  }
  __syncthreads();
  {
    float products_of[kHeads] = {};
#pragma unroll 1
    for (int first = 0; first < kOwn; first += kAhead) {
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
#pragma unroll
        for (int h = 0; h < kHeads; ++h) {
          products_of[h] = fmaf(rows[team * kOwn + first + i][h], factors[i], products_of[h]);
        }
      }
      from += kAhead * Dim;
      if (first + kAhead == kOwn) break;
#pragma unroll
      for (int i = 0; i < kAhead; ++i) factors[i] = __ldg(from + i * Dim);
    }
#pragma unroll
    for (int h = 0; h < kHeads; ++h) products[team][h][j] = products_of[h];
  }
  __syncthreads();
  if (warp < kHeads) {  // a warp a head
    const float* means = basis + BasisPartOffset(BasisPart::kMeanCoordinates, Dim);
    float highest = 0, constant = 0;
    for (int i = lane; i < Dim; i += 32) {
      float x = products[0][warp][i];
#pragma unroll
      for (int other = 1; other < kTeams; ++other) x += products[other][warp][i];
      products[0][warp][i] = x;
      highest = fmaxf(highest, fabsf(x));
      constant = fmaf(x, __ldg(means + i), constant);
    }
    for (int i = 16; i > 0; i /= 2) {
      highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, i));
      constant += __shfl_xor_sync(~0u, constant, i);
    }
    if (lane == 0) largest[warp] = highest, fixed.head_constants[warp] = constant;
  }
  __syncthreads();
  float highest = 0;
  for (int h = 0; h < kHeads; ++h) highest = fmaxf(highest, largest[h]);
  const int exponent = StillExponent<Bits>(highest);
  const float inverse = StillInverse<Bits>(exponent);
  if (thread == 0) fixed.unit_bits = static_cast<uint32_t>(exponent) << 23;
  const int g = lane / 4, t = lane % 4;
  for (int pair = warp; pair < Dim / 32; pair += kStillBeginThreads / 32) {
    float x[4][2];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      x[i / 2][i % 2] = products[0][g][32 * pair + 8 * (i / 2) + 2 * t + i % 2];
    }
    fixed.terms[pair][lane] = StillTerms<Bits>(x, inverse);
  }
  if constexpr (Shared::kKeepsQueries) {
    for (int f = warp; f < Dim / 16; f += kStillBeginThreads / 32) {
      const float* x = &products[0][g][16 * f + 2 * t];
      fixed.queries[f][lane] = make_uint2(PackHalves(x[0], x[1]), PackHalves(x[8], x[9]));
    }
  }
  if (warp < kHeads) {
    int total = 0;
    for (int i = lane; i < Dim; i += 32) total += __float2int_rn(products[0][warp][i] * inverse);
    total = __reduce_add_sync(~0u, total);
    if (lane == 0) fixed.offsets[warp] = 128 * total;
  }
  ptx::FenceShared();  // copies will come where the queries were
}

}  // namespace corpusd::cuda
