// kernels/cuda/encode_token.cuh -- the codes of one token of a cq tile, by one warp: the operations
// of kernels/reference/coded_tile_codec.cc one by one. What the reference does coordinate by
// coordinate from the last to the first is kept; the sum that aims a coordinate is added to as soon
// as an error behind it is known, in the same descending order, so that lanes hold the coordinates.
#pragma once

#include <cstdint>

#include "kernels/coded_levels.h"
#include "kernels/coded_tile.h"
#include "kernels/cuda/page.h"

namespace corpusd::cuda {

__device__ __forceinline__ float FiniteOrZero(float x) {
  return fabsf(x) <= 3.402823466e+38f ? x : 0.0f;
}

__device__ __forceinline__ int ScaleByteOf(float scale, uint32_t rounding) {
  const int byte =
      static_cast<int>((__float_as_uint(scale) + rounding) >> kScaleShift) - kScaleByteBias;
  return min(max(byte, 0), 255);
}
__device__ __forceinline__ float ScaleOf(int byte) {
  return __uint_as_float(ScaleBits(static_cast<uint32_t>(byte)));
}

// The smallest scale that holds the largest coordinate; codes rounded to nearest even.
template <int Dim>
__device__ __forceinline__ void EncodeWideToken(const float* z, uint8_t* codes, uint8_t* scale) {
  const int lane = threadIdx.x % 32;
  float largest = 0;
  for (int j = lane; j < Dim; j += 32) largest = fmaxf(largest, fabsf(z[j]));
  for (int i = 16; i > 0; i /= 2) largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, i));
  const int byte = ScaleByteOf(__fmul_rn(largest, kUnit8 / 127), kScaleAbove);
  const float inverse = __fdiv_rn(kUnit8, ScaleOf(byte));
  for (int j = lane; j < Dim; j += 32) {
    const float level = fminf(127.0f, fmaxf(-127.0f, rintf(__fmul_rn(z[j], inverse))));
    codes[j] = static_cast<uint8_t>(static_cast<int>(level) + 128);
  }
  if (lane == 0) *scale = static_cast<uint8_t>(byte);
}

// The positive level nearest to |u| (ties to the smaller) and its index, from level First on. The
// constants are forced to compile time: a table of the host has no place in device code.
template <int Bits, uint32_t First = 0>
__device__ __forceinline__ float NearestLevel(float size, uint32_t* index) {
  constexpr float kLevel = PositiveLevel(Bits, First);
  *index = First;
  if constexpr (First + 1 < 1u << (Bits - 1)) {
    constexpr float kBorder = LevelBorder(Bits, First);
    uint32_t above;
    const float level = NearestLevel<Bits, First + 1>(size, &above);
    if (size > kBorder) {
      *index = above;
      return level;
    }
  }
  return kLevel;
}

// sqrt(weight_j) (z_j + sum over i > j, descending, of feedback[j][i] z_i) into rz. RETURNS the sum
// of their squares from the last to the first.
template <int Dim>
__device__ __forceinline__ float ApplyMetric(float* rz, const float* z, const float* feedback,
                                             const float* weight) {
  constexpr int kOwn = Dim / 32;
  const int lane = threadIdx.x % 32;
  float sums[kOwn];
#pragma unroll
  for (int k = 0; k < kOwn; ++k) sums[k] = z[lane + 32 * k];
  for (int i = Dim - 1; i > 0; --i) {
    const float factor = z[i];
#pragma unroll
    for (int k = 0; k < kOwn; ++k) {
      const int j = lane + 32 * k;
      if (j < i) sums[k] = __fmaf_rn(feedback[i * Dim + j], factor, sums[k]);
    }
  }
#pragma unroll
  for (int k = 0; k < kOwn; ++k) {
    rz[lane + 32 * k] = __fmul_rn(__fsqrt_rn(weight[lane + 32 * k]), sums[k]);
  }
  __syncwarp();
  float squares = 0;
  for (int j = Dim - 1; j >= 0; --j) squares = __fmaf_rn(rz[j], rz[j], squares);
  return squares;
}

// The scales that are tried for a token, side by side: every lane holds the targets of coordinates
// lane + 32 k under each, and looks after one trial, that of its number modulo 4 (lanes 3 modulo 4
// repeat the last).
template <int Own>
struct TokenTrials {
  float targets[kScaleTrials][Own];
  float step, inverse, cost, overlap;  // of the lane's trial
};

// Codes coordinate 32 K + l under every scale, and lets the errors aim those before it. z, root,
// rz: of the coordinate; codes: [trial][Dim], at the coordinate.
template <int Bits, int Own, int K>
__device__ __forceinline__ void CodeCoordinate(TokenTrials<Own>* trials, int l, float z, float root,
                                               float rz, const float (&feedback)[Own],
                                               uint8_t* codes, int dims) {
  static_assert(kScaleTrials == 3);
  const int lane = threadIdx.x % 32, own = min(lane % 4, 2);
  const float first = __shfl_sync(~0u, trials->targets[0][K], l);
  const float second = __shfl_sync(~0u, trials->targets[1][K], l);
  const float third = __shfl_sync(~0u, trials->targets[2][K], l);
  const float target = own == 0 ? first : own == 1 ? second : third;
  const float u = __fmul_rn(target, trials->inverse);
  uint32_t magnitude;
  const float size = NearestLevel<Bits>(fabsf(u), &magnitude);
  const bool negative = signbit(u);
  const float level = negative ? -size : size;
  constexpr uint32_t kHalf = 1u << (Bits - 1);
  if (lane < 3) {
    codes[lane * dims] = static_cast<uint8_t>(negative ? kHalf - 1 - magnitude : kHalf + magnitude);
  }
  const float error = __fmaf_rn(-trials->step, level, z);
  const float left = __fmul_rn(root, __fmaf_rn(-trials->step, level, target));
  trials->cost = __fmaf_rn(left, left, trials->cost);
  trials->overlap = __fmaf_rn(rz, left, trials->overlap);
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    const float moved = __shfl_sync(~0u, error, i);
#pragma unroll
    for (int k = 0; k <= K; ++k) {
      trials->targets[i][k] = __fmaf_rn(feedback[k], moved, trials->targets[i][k]);
    }
  }
}

template <int Bits, int Dim, int K>
__device__ __forceinline__ void CodeCoordinates(TokenTrials<Dim / 32>* trials, const float* z,
                                                const float* rz, const float* feedback,
                                                const float* weight, uint8_t* codes) {
  constexpr int kOwn = Dim / 32;
  const int lane = threadIdx.x % 32;
  for (int l = 31; l >= 0; --l) {
    const int j = 32 * K + l;
    float column[kOwn];
#pragma unroll
    for (int k = 0; k < kOwn; ++k) {  // zero at and behind j: nothing is aimed twice
      column[k] = k <= K ? feedback[j * Dim + lane + 32 * k] : 0.0f;
    }
    CodeCoordinate<Bits, kOwn, K>(trials, l, z[j], __fsqrt_rn(weight[j]), rz[j], column, codes + j,
                                  Dim);
  }
  if constexpr (K > 0) CodeCoordinates<Bits, Dim, K - 1>(trials, z, rz, feedback, weight, codes);
}

// z, rz: [Dim], trial_codes: [3][Dim], in shared memory, the latter two for the warp's own use.
// basis: of the tile's head and side.
template <int Bits, int Dim>
__device__ __forceinline__ void EncodeNarrowToken(const float* z, float* rz, uint8_t* trial_codes,
                                                  const float* basis, uint8_t* codes,
                                                  uint8_t* scale) {
  constexpr int kOwn = Dim / 32;
  const int lane = threadIdx.x % 32;
  const float* feedback = basis + BasisPartOffset(BasisPart::kFeedback, Dim);
  const float* weight = basis + BasisPartOffset(BasisPart::kWeight, Dim);
  float squares = 0;
  for (int j = 0; j < Dim; ++j) squares = __fmaf_rn(z[j], z[j], squares);
  const int nearest = ScaleByteOf(__fsqrt_rn(__fmul_rn(squares, 1.0f / Dim)), kNearestScale);
  const float metric_squares = ApplyMetric<Dim>(rz, z, feedback, weight);
  TokenTrials<kOwn> trials;
  const int offset = kFirstScaleTrial + min(lane % 4, 2) * kScaleTrialStep;
  const int own_byte = min(max(nearest + offset, 0), 255);
  trials.step = __fmul_rn(ScaleOf(own_byte), 1.0f / LevelUnit(Bits));
  trials.inverse = __fdiv_rn(1.0f, trials.step);
  trials.cost = trials.overlap = 0;
#pragma unroll
  for (int i = 0; i < 3; ++i) {
#pragma unroll
    for (int k = 0; k < kOwn; ++k) trials.targets[i][k] = z[lane + 32 * k];
  }
  CodeCoordinates<Bits, Dim, kOwn - 1>(&trials, z, rz, feedback, weight, trial_codes);
  int best = 0;
  float cost = __shfl_sync(~0u, trials.cost, 0);
#pragma unroll
  for (int i = 1; i < 3; ++i) {
    const float other = __shfl_sync(~0u, trials.cost, i);
    if (!(other < cost)) continue;
    cost = other;
    best = i;
  }
  int byte = __shfl_sync(~0u, own_byte, best);
  const float along = __fsub_rn(metric_squares, __shfl_sync(~0u, trials.overlap, best));
  __syncwarp();
#pragma unroll
  for (int k = 0; k < kOwn; ++k) codes[lane + 32 * k] = trial_codes[best * Dim + lane + 32 * k];
  if (along > 0) {
    const float ratio = __fdiv_rn(metric_squares, along);
    const float bounded = ratio < kLargestCorrection ? ratio : kLargestCorrection;
    byte = ScaleByteOf(__fmul_rn(ScaleOf(byte), bounded), kNearestScale);
  }
  if (lane == 0) *scale = static_cast<uint8_t>(byte);
}

}  // namespace corpusd::cuda
