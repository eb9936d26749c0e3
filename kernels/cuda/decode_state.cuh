// kernels/cuda/decode_state.cuh -- what one warp of decode attention does with its tiles: scores,
// probabilities and values as tensor-core products on raw codes, partial results (m, l, o) in
// registers. The kernel around it, its loading and its merges, is decode_kernel.cuh.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "kernels/cuda/coded_tile.h"
#include "kernels/cuda/decode_plan.h"
#include "kernels/cuda/ptx/async_copy.cuh"
#include "kernels/cuda/ptx/tensor_core.cuh"

namespace corpusd::cuda {

inline constexpr float kNoScore = -1e30f;
inline constexpr unsigned kWholeWarp = ~0u;

struct DecodeArguments {
  DecodePlan plan;
  const uint8_t* const* blocks;
  uint64_t key_offset, value_offset, tile_stride;
  const float* queries;
  float* outputs;
  float* log_sums;
  int tokens, rows;  // rows: query rows of one KV head
  int stages;        // of the ring
  uint32_t magic;    // kHalfPair1024, unknown to the compiler: see UnpackFragment
  // Workspace: [heads][plan.blocks] partial results and a counter a head.
  float* part_outputs;   // [..][rows][dim]
  float2* part_maxima;   // [..][rows] of (m, l)
  int* finished_blocks;  // [heads]
};

// Shape of an instantiation: 8 * Columns query rows at most; each warp takes Groups of a tile's 8
// token groups, so that Warps * Groups / 8 tiles are in work at once.
template <int BitsOf, int DimOf, int ColumnsOf, int WarpsOf, int GroupsOf>
struct DecodeShape {
  static constexpr int Bits = BitsOf, Dim = DimOf, Columns = ColumnsOf, Warps = WarpsOf,
                       Groups = GroupsOf;
  using Tile = CodedTile<Bits, Dim>;
  static constexpr int kTileWarps = kGroups / Groups;
  static constexpr int kTeams = Warps / kTileWarps;
  static constexpr int kThreads = Warps * 32;  // without the loading warp
  // A tile's place in shared memory: bulk copies are slower to half a line of 128 bytes.
  static constexpr int kSlotBytes = (Tile::kBytes + 127) / 128 * 128;
  static constexpr int kPairBytes = 2 * kSlotBytes;
  static constexpr int kStageBytes = kTeams * kPairBytes;
  static_assert(Warps % kTileWarps == 0 && kTeams <= 32);
  static constexpr int SharedBytes(int stages, int rows) {
    return stages * (kStageBytes + 16) + Warps * 8 * Columns * 8 + Warps * rows * Dim * 4 + 16;
  }
};

// The parts of the block's shared memory.
template <class Shape>
struct DecodeShared {
  uint8_t* ring;
  uint64_t *full, *empty;  // barriers of each stage
  float2* maxima;          // [warps][8 * columns] of (m, l)
  float* outputs;          // [warps][rows][dim]
  int* last;               // whether this block is the head's last

  __device__ DecodeShared(uint8_t* base, int stages, int rows)
      : ring(base),
        full(reinterpret_cast<uint64_t*>(base + stages * Shape::kStageBytes)),
        empty(full + stages),
        maxima(reinterpret_cast<float2*>(empty + stages)),
        outputs(reinterpret_cast<float*>(maxima + Shape::Warps * 8 * Shape::Columns)),
        last(reinterpret_cast<int*>(outputs + Shape::Warps * rows * Shape::Dim)) {}
};

template <int Words>
__device__ __forceinline__ void LoadWords(const uint8_t* group, int lane,
                                          uint32_t (&words)[Words]) {
  constexpr int kWhole = Words / 4 * 4;
#pragma unroll
  for (int i = 0; i < kWhole; i += 4) {
    const uint4 x = *reinterpret_cast<const uint4*>(group + i * 128 + lane * 16);
    words[i] = x.x, words[i + 1] = x.y, words[i + 2] = x.z, words[i + 3] = x.w;
  }
  if constexpr (Words % 4 >= 2) {
    const uint2 x = *reinterpret_cast<const uint2*>(group + kWhole * 128 + lane * 8);
    words[kWhole] = x.x, words[kWhole + 1] = x.y;
  }
  if constexpr (Words % 2 == 1) {
    words[Words - 1] = *reinterpret_cast<const uint32_t*>(group + (Words - 1) * 128 + lane * 4);
  }
}

__device__ __forceinline__ uint32_t AsWord(__half2 pair) {
  return *reinterpret_cast<const uint32_t*>(&pair);
}
// The scale bytes of rows g and g+8 of a group, as floats.
__device__ __forceinline__ float2 LoadScales(const uint8_t* tile_scales, int group, int g) {
  const uint32_t pair = *reinterpret_cast<const uint16_t*>(tile_scales + group * 16 + g * 2);
  return make_float2(__uint_as_float(ScaleBits(pair & 255)), __uint_as_float(ScaleBits(pair >> 8)));
}

// What one warp knows of one head. Accumulators follow the C operand of the instruction: lane 4g+t
// holds rows g (c = 0, 1) and g+8 (c = 2, 3) of columns 2t, 2t+1, and columns are query rows.
template <class Shape>
struct WarpState {
  static constexpr int F = Shape::Tile::kFragments, N = Shape::Columns, G = Shape::Groups;
  uint32_t query[N][F][2];                  // the B operand of S = K q
  float start_low[N][2], start_high[N][2];  // minus the codes' offsets, in rows g and g+8
  float output[N][F][4];                    // O^T, still with the codes' offsets
  float weight[N][4];                       // sum of p * scale of V: what those offsets multiply
  float top[N][2], sum[N][2];  // m (the same in all lanes of a column) and l (the lane's)

  __device__ void Begin(const DecodeArguments& args, int head);
  __device__ void AddTile(const DecodeArguments& args, const uint8_t* keys, int tile, int part);
  __device__ void Scores(const uint8_t* keys, int group, uint32_t magic, float (&score)[N][4]);
  __device__ void AddValues(const uint8_t* values, int group, uint32_t magic,
                            const float (&score)[N][4]);
  __device__ void Rescale(const float (&score)[G][N][4]);
  __device__ void Store(const DecodeArguments& args, const DecodeShared<Shape>& shared);
};

template <class Shape>
__device__ void WarpState<Shape>::Begin(const DecodeArguments& args, int head) {
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int n = 0; n < N; ++n) {
    const int row = n * 8 + g;
    float base = 0, middle = 0;
#pragma unroll
    for (int f = 0; f < F; ++f) {
      float2 x = make_float2(0, 0), y = x;
      if (row < args.rows) {
        const float* from = args.queries +
                            (static_cast<size_t>(head) * args.rows + row) * Shape::Dim + f * 16 +
                            2 * t;
        x = *reinterpret_cast<const float2*>(from);
        y = *reinterpret_cast<const float2*>(from + 8);
      }
      const float inverse = 1.f / FragmentStep<Shape::Bits>(f);
      const __half2 low = __floats2half2_rn(x.x * inverse, x.y * inverse);
      const __half2 high = __floats2half2_rn(y.x * inverse, y.y * inverse);
      query[n][f][0] = AsWord(low);
      query[n][f][1] = AsWord(high);
      const float all =
          __low2float(low) + __high2float(low) + __low2float(high) + __high2float(high);
      base += all * 1024.f;
      middle += all * FragmentStep<Shape::Bits>(f) * MidCode<Shape::Bits>();
    }
#pragma unroll
    for (int i = 1; i < 4; i *= 2) {
      base += __shfl_xor_sync(kWholeWarp, base, i);
      middle += __shfl_xor_sync(kWholeWarp, middle, i);
    }
#pragma unroll
    for (int c = 0; c < 2; ++c) {  // from column g to columns 2t, 2t+1
      start_low[n][c] = __shfl_sync(kWholeWarp, -(base + middle), (2 * t + c) * 4);
      start_high[n][c] =
          __shfl_sync(kWholeWarp, -(base + middle * RowRatio<Shape::Bits>()), (2 * t + c) * 4);
      top[n][c] = kNoScore;
      sum[n][c] = 0;
    }
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      weight[n][c] = 0;
#pragma unroll
      for (int f = 0; f < F; ++f) output[n][f][c] = 0;
    }
  }
}

template <class Shape>
__device__ __forceinline__ void WarpState<Shape>::Scores(const uint8_t* keys, int group,
                                                         uint32_t magic, float (&score)[N][4]) {
  const int lane = threadIdx.x % 32, g = lane / 4;
  using Tile = typename Shape::Tile;
  uint32_t words[Tile::kWords];
  LoadWords(keys + group * Tile::kGroupBytes, lane, words);
  float odd[N][4];  // two chains of dependent products instead of one
#pragma unroll
  for (int n = 0; n < N; ++n) {
    score[n][0] = start_low[n][0], score[n][1] = start_low[n][1];
    score[n][2] = start_high[n][0], score[n][3] = start_high[n][1];
    odd[n][0] = odd[n][1] = odd[n][2] = odd[n][3] = 0;
  }
#pragma unroll
  for (int f = 0; f < F; ++f) {
    uint32_t a[4];
    UnpackFragment<Shape::Bits>(words, f, magic, a);
#pragma unroll
    for (int n = 0; n < N; ++n) {
      ptx::MmaM16N8K16(f % 2 == 1 ? odd[n] : score[n], a, query[n][f][0], query[n][f][1]);
    }
  }
  const float2 scale = LoadScales(keys + Tile::kCodeBytes, group, g);
  const float low = scale.x, high = scale.y * (1.f / RowRatio<Shape::Bits>());
#pragma unroll
  for (int n = 0; n < N; ++n) {
    score[n][0] = (score[n][0] + odd[n][0]) * low, score[n][1] = (score[n][1] + odd[n][1]) * low;
    score[n][2] = (score[n][2] + odd[n][2]) * high, score[n][3] = (score[n][3] + odd[n][3]) * high;
  }
}

// Moves the running maxima up to the scores and everything summed so far with them.
template <class Shape>
__device__ __forceinline__ void WarpState<Shape>::Rescale(const float (&score)[G][N][4]) {
#pragma unroll
  for (int n = 0; n < N; ++n) {
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      float x = top[n][c];
#pragma unroll
      for (int i = 0; i < G; ++i) x = fmaxf(x, fmaxf(score[i][n][c], score[i][n][c + 2]));
#pragma unroll
      for (int i = 4; i < 32; i *= 2) x = fmaxf(x, __shfl_xor_sync(kWholeWarp, x, i));
      const float factor = ptx::Exp2(top[n][c] - x);
      top[n][c] = x;
      sum[n][c] *= factor;
      weight[n][c] *= factor, weight[n][c + 2] *= factor;
#pragma unroll
      for (int f = 0; f < F; ++f) output[n][f][c] *= factor, output[n][f][c + 2] *= factor;
    }
  }
}

template <class Shape>
__device__ __forceinline__ void WarpState<Shape>::AddValues(const uint8_t* values, int group,
                                                            uint32_t magic,
                                                            const float (&score)[N][4]) {
  const int lane = threadIdx.x % 32, g = lane / 4;
  using Tile = typename Shape::Tile;
  uint32_t words[Tile::kWords];
  LoadWords(values + group * Tile::kGroupBytes, lane, words);
  const float2 scale = LoadScales(values + Tile::kCodeBytes, group, g);
  uint32_t p[N][2];  // the B operand of O^T = V^T P^T: tokens down, query rows across
#pragma unroll
  for (int n = 0; n < N; ++n) {
    const float p0 = ptx::Exp2(score[n][0] - top[n][0]), p1 = ptx::Exp2(score[n][1] - top[n][1]);
    const float p2 = ptx::Exp2(score[n][2] - top[n][0]), p3 = ptx::Exp2(score[n][3] - top[n][1]);
    sum[n][0] += p0 + p2, sum[n][1] += p1 + p3;
    p[n][0] = ptx::TransposeHalves(AsWord(__floats2half2_rn(p0 * scale.x, p1 * scale.x)));
    p[n][1] = ptx::TransposeHalves(AsWord(__floats2half2_rn(p2 * scale.y, p3 * scale.y)));
  }
#pragma unroll
  for (int f = 0; f < F; ++f) {
    uint32_t a[4];
    UnpackFragment<Shape::Bits>(words, f, magic, a);
#pragma unroll
    for (int n = 0; n < N; ++n) ptx::MmaM16N8K16(output[n][f], a, p[n][0], p[n][1]);
  }
  const uint32_t ones[4] = {0x3C003C00u, 0x3C003C00u, 0x3C003C00u, 0x3C003C00u};
#pragma unroll
  for (int n = 0; n < N; ++n) ptx::MmaM16N8K16(weight[n], ones, p[n][0], p[n][1]);
}

// part: which of the tile's warps this is.
template <class Shape>
__device__ __forceinline__ void WarpState<Shape>::AddTile(const DecodeArguments& args,
                                                          const uint8_t* keys, int tile, int part) {
  // A score may pass the running maximum by this many octaves before everything is rescaled: halves
  // hold 2^(6 + 3), the largest scale included.
  constexpr float kSlack = 6.f;
  const int g = threadIdx.x % 32 / 4;
  float score[G][N][4];
#pragma unroll
  for (int i = 0; i < G; ++i) Scores(keys, part * G + i, args.magic, score[i]);
  if (tile == args.plan.tiles - 1) {
#pragma unroll
    for (int i = 0; i < G; ++i) {
      const int row = tile * kTileTokens + (part * G + i) * kGroupTokens + g;
#pragma unroll
      for (int n = 0; n < N; ++n) {
        if (row >= args.tokens) score[i][n][0] = score[i][n][1] = kNoScore;
        if (row + 8 >= args.tokens) score[i][n][2] = score[i][n][3] = kNoScore;
      }
    }
  }
  bool high = false;
#pragma unroll
  for (int n = 0; n < N; ++n) {
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      float x = kNoScore;
#pragma unroll
      for (int i = 0; i < G; ++i) x = fmaxf(x, fmaxf(score[i][n][c], score[i][n][c + 2]));
      high |= x > top[n][c] + kSlack;
    }
  }
  if (__any_sync(kWholeWarp, high)) Rescale(score);
#pragma unroll
  for (int i = 0; i < G; ++i) {
    AddValues(keys + Shape::kSlotBytes, part * G + i, args.magic, score[i]);
  }
}

// Puts (m, l) and, without the codes' offsets and relative to the block's maximum, o into shared
// memory. All warps of the block take part.
template <class Shape>
__device__ void WarpState<Shape>::Store(const DecodeArguments& args,
                                        const DecodeShared<Shape>& shared) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int n = 0; n < N; ++n) {
#pragma unroll
    for (int c = 0; c < 2; ++c) {
#pragma unroll
      for (int i = 4; i < 32; i *= 2) sum[n][c] += __shfl_xor_sync(kWholeWarp, sum[n][c], i);
      if (g == 0) {
        shared.maxima[warp * 8 * N + n * 8 + 2 * t + c] = make_float2(top[n][c], sum[n][c]);
      }
    }
  }
  ptx::SyncThreads<Shape::kThreads>();
#pragma unroll
  for (int n = 0; n < N; ++n) {
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      const int row = n * 8 + 2 * t + c;
      if (row >= args.rows) continue;
      float highest = kNoScore;
#pragma unroll
      for (int w = 0; w < Shape::Warps; ++w) {
        highest = fmaxf(highest, shared.maxima[w * 8 * N + row].x);
      }
      const float factor = ptx::Exp2(top[n][c] - highest), all = weight[n][c];
      float* to = shared.outputs + (warp * args.rows + row) * Shape::Dim + g;
#pragma unroll
      for (int f = 0; f < F; ++f) {
        constexpr float kMiddle = MidCode<Shape::Bits>();
        const float step = FragmentStep<Shape::Bits>(f), ratio = RowRatio<Shape::Bits>();
        const float low = (output[n][f][c] - 1024.f * all) * (1.f / step) - kMiddle * all;
        const float up =
            (output[n][f][c + 2] - 1024.f * all) * (1.f / (step * ratio)) - kMiddle * all;
        to[f * 16] = low * factor;
        to[f * 16 + 8] = up * factor;
      }
    }
  }
  ptx::SyncThreads<Shape::kThreads>();
}

}  // namespace corpusd::cuda
