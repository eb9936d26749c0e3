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

// What one scale makes of a token; targets and codes of coordinates lane + 32 k.
template <int Own>
struct TokenTrial {
  float targets[Own];
  uint8_t codes[Own];
  float step, inverse, cost, overlap;
};

// Codes coordinate 32 k + l, and lets its error aim those before it. z, root, rz: of the
// coordinate.
template <int Bits, int Own, int K>
__device__ __forceinline__ void CodeCoordinate(TokenTrial<Own>* trial, int l, float z, float root,
                                               float rz, const float (&feedback)[Own]) {
  const float target = __shfl_sync(~0u, trial->targets[K], l);
  const float u = __fmul_rn(target, trial->inverse);
  uint32_t magnitude;
  const float size = NearestLevel<Bits>(fabsf(u), &magnitude);
  const bool negative = signbit(u);
  const float level = negative ? -size : size;
  constexpr uint32_t kHalf = 1u << (Bits - 1);
  const uint32_t code = negative ? kHalf - 1 - magnitude : kHalf + magnitude;
  if (threadIdx.x % 32 == l) trial->codes[K] = static_cast<uint8_t>(code);
  const float error = __fmaf_rn(-trial->step, level, z);
  const float left = __fmul_rn(root, __fmaf_rn(-trial->step, level, target));
  trial->cost = __fmaf_rn(left, left, trial->cost);
  trial->overlap = __fmaf_rn(rz, left, trial->overlap);
#pragma unroll
  for (int k = 0; k <= K; ++k) {
    trial->targets[k] = __fmaf_rn(feedback[k], error, trial->targets[k]);
  }
}

template <int Bits, int Dim, int K>
__device__ __forceinline__ void CodeCoordinates(TokenTrial<Dim / 32> (&trials)[kScaleTrials],
                                                const float* z, const float* rz,
                                                const float* feedback, const float* weight) {
  constexpr int kOwn = Dim / 32;
  const int lane = threadIdx.x % 32;
  for (int l = 31; l >= 0; --l) {
    const int j = 32 * K + l;
    float column[kOwn];
#pragma unroll
    for (int k = 0; k < kOwn; ++k) {  // zero at and behind j: nothing is aimed twice
      column[k] = k <= K ? feedback[j * Dim + lane + 32 * k] : 0.0f;
    }
    const float root = __fsqrt_rn(weight[j]);
#pragma unroll
    for (uint32_t i = 0; i < kScaleTrials; ++i) {
      CodeCoordinate<Bits, kOwn, K>(&trials[i], l, z[j], root, rz[j], column);
    }
  }
  if constexpr (K > 0) CodeCoordinates<Bits, Dim, K - 1>(trials, z, rz, feedback, weight);
}

// z, rz: [Dim] in shared memory, rz for the warp's own use. basis: of the tile's head and side.
template <int Bits, int Dim>
__device__ __forceinline__ void EncodeNarrowToken(const float* z, float* rz, const float* basis,
                                                  uint8_t* codes, uint8_t* scale) {
  constexpr int kOwn = Dim / 32;
  const int lane = threadIdx.x % 32;
  const float* feedback = basis + BasisPartOffset(BasisPart::kFeedback, Dim);
  const float* weight = basis + BasisPartOffset(BasisPart::kWeight, Dim);
  float squares = 0;
  for (int j = 0; j < Dim; ++j) squares = __fmaf_rn(z[j], z[j], squares);
  const int nearest = ScaleByteOf(__fsqrt_rn(__fmul_rn(squares, 1.0f / Dim)), kNearestScale);
  const float metric_squares = ApplyMetric<Dim>(rz, z, feedback, weight);
  TokenTrial<kOwn> trials[kScaleTrials];
  int bytes[kScaleTrials];
#pragma unroll
  for (uint32_t i = 0; i < kScaleTrials; ++i) {
    const int offset = kFirstScaleTrial + static_cast<int>(i) * kScaleTrialStep;
    bytes[i] = min(max(nearest + offset, 0), 255);
    trials[i].step = __fmul_rn(ScaleOf(bytes[i]), 1.0f / LevelUnit(Bits));
    trials[i].inverse = __fdiv_rn(1.0f, trials[i].step);
    trials[i].cost = trials[i].overlap = 0;
#pragma unroll
    for (int k = 0; k < kOwn; ++k) {
      trials[i].targets[k] = z[lane + 32 * k];
      trials[i].codes[k] = 0;
    }
  }
  CodeCoordinates<Bits, Dim, kOwn - 1>(trials, z, rz, feedback, weight);
  TokenTrial<kOwn> best = trials[0];
  int byte = bytes[0];
#pragma unroll
  for (uint32_t i = 1; i < kScaleTrials; ++i) {
    if (!(trials[i].cost < best.cost)) continue;
    best = trials[i];
    byte = bytes[i];
  }
#pragma unroll
  for (int k = 0; k < kOwn; ++k) codes[lane + 32 * k] = best.codes[k];
  const float along = __fsub_rn(metric_squares, best.overlap);
  if (along > 0) {
    const float ratio = __fdiv_rn(metric_squares, along);
    const float bounded = ratio < kLargestCorrection ? ratio : kLargestCorrection;
    byte = ScaleByteOf(__fmul_rn(ScaleOf(byte), bounded), kNearestScale);
  }
  if (lane == 0) *scale = static_cast<uint8_t>(byte);
}

}  // namespace corpusd::cuda
