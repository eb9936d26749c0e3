// AttendCodedParts: a block takes a long stretch of one row's pages for one KV head, those whose
// keys and values are coded in one width, eight at a time. Queries turned into each page's frame go
// through the basis as one product of the tensor core and become integers of 16 bits; scores are
// integer products with the keys' levels as bytes. Weights are halves, and so become the values'
// levels. A warp has a group of 16 tokens of every page; its codes arrive by copies of its own, up
// to four pages ahead. What the means of eight blocks add is a product of rank eight.
//
// 256 threads, at most 128 registers, 113 KB of shared memory: two blocks a multiprocessor.
#include <cuda_runtime.h>

#include "kernels/cuda/coded_chunk.cuh"

namespace corpusd::cuda {
namespace {

// Weights are 2^(score - reference). The reference is kLift octaves below the highest score when it
// is set, and set anew when a score passes it by kCeiling: so halves hold a weight times the
// largest scale, and weights down to 2^-22 of the largest to full precision.
constexpr float kLift = 8.0f;
constexpr float kCeiling = 11.0f;
constexpr float kNoReference = kNoScore / 2;  // scores of slots not seen are far below it

// What a warp reads of a page's keys or values: its group's words and scales.
template <int Bits, int Dim>
struct CodedGroup {
  using Tile = CodedTile<Bits, Dim>;
  uint32_t words[Tile::kWords];
  uint32_t scales;  // keys: of tokens g, g + 8; values: of 2t, 2t + 8, 2t + 1, 2t + 9

  template <bool IsKey>
  __device__ __forceinline__ void Read(const uint8_t* slot, int lane) {
    constexpr int kWhole = Tile::kWords / 4 * 4;
#pragma unroll
    for (int w = 0; w < kWhole; w += 4) {
      const auto v = *reinterpret_cast<const uint4*>(slot + Tile::WordOffset(w, lane));
      words[w] = v.x, words[w + 1] = v.y, words[w + 2] = v.z, words[w + 3] = v.w;
    }
    if constexpr (Tile::kWords % 4 >= 2) {
      const auto v = *reinterpret_cast<const uint2*>(slot + Tile::WordOffset(kWhole, lane));
      words[kWhole] = v.x, words[kWhole + 1] = v.y;
    }
    if constexpr (Tile::kWords % 2 == 1) {
      constexpr int kLast = Tile::kWords - 1;
      words[kLast] = *reinterpret_cast<const uint32_t*>(slot + Tile::WordOffset(kLast, lane));
    }
    const uint8_t* of_group = slot + Tile::kGroupBytes;
    scales = IsKey ? *reinterpret_cast<const uint16_t*>(of_group + lane / 4 * 2)
                   : *reinterpret_cast<const uint32_t*>(of_group + lane % 4 * 4);
  }
};

// Asks for what CodedGroup reads of a tile, zeros if there is nothing to see; one group of copies.
template <int Bits, int Dim>
__device__ __forceinline__ void Request(uint8_t* slot, const uint8_t* tile, int warp, int lane) {
  using Tile = CodedTile<Bits, Dim>;
  const uint8_t* from = tile + (warp * Tile::kGroupBytes + lane * 16);
#pragma unroll
  for (int first = 0; first < Tile::kGroupBytes; first += 512) {
    const bool inside = Tile::kGroupBytes % 512 == 0 || first + lane * 16 < Tile::kGroupBytes;
    ptx::CopyAsync16If(tile != nullptr && inside, slot + first + lane * 16, from + first);
  }
  ptx::CopyAsync16If(tile != nullptr && lane == 0, slot + Tile::kGroupBytes,
                     tile + Tile::kCodeBytes + warp * 16);
  ptx::CommitCopies();
}

// A warp's softmax over its groups. Lane 4g + t has heads 2t, 2t + 1; scores of tokens g, g + 8;
// value sums of dims g, g + 8 of each fragment, in units of levels.
template <int Bits, int Dim>
struct CodedState {
  static constexpr int kPairs = Dim / 32;
  using Fixed = CodedFixed<Bits, Dim>;
  LevelTable<Bits> table;
  const int lane, g = lane / 4, t = lane % 4;
  float reference[2] = {kNoReference, kNoReference}, sum[2] = {};
  float output[2 * kPairs][4] = {};
  float mass[4] = {};  // of page g of the chunk, in 0 and 1

  __device__ __forceinline__ explicit CodedState(int lane_of_warp) : lane(lane_of_warp) {}
  using Group = CodedGroup<Bits, Dim>;
  // at: of the page in its chunk.
  __device__ __forceinline__ void Scores(float (&score)[4], const Group& keys, const Fixed& shared,
                                         int at) const;
  __device__ __forceinline__ void Weigh(uint32_t (&weight)[2], float (&score)[4],
                                        const CodedPage& page);
  __device__ __forceinline__ void AddValues(const uint32_t (&weight)[2], const Group& values,
                                            int at);
  __device__ __forceinline__ void AddMeans(const Fixed& shared);
  __device__ __forceinline__ void Merge(Fixed* shared);

 private:
  __device__ __forceinline__ void Raise(const float (&score)[4]);
};

template <int Bits, int Dim>
__device__ __forceinline__ void CodedState<Bits, Dim>::Scores(float (&score)[4], const Group& keys,
                                                              const Fixed& shared, int at) const {
  const int2 offset = *reinterpret_cast<const int2*>(&shared.offsets[at][2 * t]);
  int high[4] = {}, low[4] = {-offset.x, -offset.y, -offset.x, -offset.y};
#pragma unroll
  for (int p = 0; p < kPairs; ++p) {
    const uint4 b = shared.terms[at][p][lane];
    uint32_t a[4];
    KeyBytes<Bits>(table, keys.words, p, a);
    ptx::MmaBytes(high, a, b.x, b.y);
    ptx::MmaBytes(low, a, b.z, b.w);
  }
  const float2 unit = *reinterpret_cast<const float2*>(&shared.level_units[2 * t]);
  const float2 constant = *reinterpret_cast<const float2*>(&shared.constants[at][2 * t]);
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    const float scale = __uint_as_float(ScaleBits(keys.scales >> 8 * row & 0xFF));
    score[2 * row] = fmaf(static_cast<float>(high[2 * row] * 256 + low[2 * row]), scale * unit.x,
                          constant.x);
    score[2 * row + 1] = fmaf(static_cast<float>(high[2 * row + 1] * 256 + low[2 * row + 1]),
                              scale * unit.y, constant.y);
  }
}

// Moves the reference up where a score calls for it, and with it what was summed so far.
template <int Bits, int Dim>
__device__ __forceinline__ void CodedState<Bits, Dim>::Raise(const float (&score)[4]) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float highest = fmaxf(score[h], score[2 + h]);
    for (int i = 4; i < 32; i *= 2) highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, i));
    const float raised = fmaxf(reference[h], highest - kLift);
    const float factor = ptx::Exp2(reference[h] - raised);
    reference[h] = raised;
    sum[h] *= factor;
    mass[h] *= factor;
#pragma unroll
    for (int f = 0; f < 2 * kPairs; ++f) output[f][h] *= factor, output[f][2 + h] *= factor;
  }
}

__device__ __forceinline__ uint32_t MultiplyHalves(uint32_t x, uint32_t y) {
  return HalfBits(__hmul2(HalfPair(x), HalfPair(y)));
}

// A scale byte is the top of a half's mantissa and the bottom of its exponent.
__device__ __forceinline__ uint32_t ScaleHalves(uint32_t bytes, uint32_t selector) {
  return PermuteBytes(bytes, 0, selector) * 32 + 0x28002800u;
}

// Scores become weights, halves with heads down: of tokens 0-7 and 8-15.
template <int Bits, int Dim>
__device__ __forceinline__ void CodedState<Bits, Dim>::Weigh(uint32_t (&weight)[2],
                                                             float (&score)[4],
                                                             const CodedPage& page) {
  if (page.hidden > 0 || page.visible < kTileTokens) {
    const int slot = threadIdx.x / 32 * kGroupTokens + g;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int of_row = slot + i / 2 * 8;
      if (of_row < page.hidden || of_row >= page.visible) score[i] = kNoScore;
    }
  }
  const bool above = fmaxf(score[0], score[2]) > reference[0] + kCeiling ||
                     fmaxf(score[1], score[3]) > reference[1] + kCeiling;
  if (__any_sync(~0u, above)) Raise(score);
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    weight[row] =
        ptx::TransposeHalves(PackHalves(ptx::Exp2(score[2 * row] - reference[0]),
                                        ptx::Exp2(score[2 * row + 1] - reference[1])));
  }
}

template <int Bits, int Dim>
__device__ __forceinline__ void CodedState<Bits, Dim>::AddValues(const uint32_t (&weight)[2],
                                                                 const Group& values, int at) {
  const uint32_t ones = g == at ? 0x3C003C00u : 0u;
  const uint32_t rows[4] = {ones, 0, ones, 0};
  ptx::MmaM16N8K16(mass, rows, weight[0], weight[1]);
  // Tokens in the order of ValueHalves: 2t, 2t + 8, then 2t + 1, 2t + 9.
  const uint32_t b0 = MultiplyHalves(PermuteBytes(weight[0], weight[1], 0x5410),
                                     ScaleHalves(values.scales, 0x4140));
  const uint32_t b1 = MultiplyHalves(PermuteBytes(weight[0], weight[1], 0x7632),
                                     ScaleHalves(values.scales, 0x4342));
#pragma unroll
  for (int p = 0; p < kPairs; ++p) {
    uint32_t a[2][4];
    ValueHalves<Bits>(table, values.words, p, a);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        a[i][r] = HalfBits(__hsub2(HalfPair(a[i][r]), HalfPair(kLevelBias)));
      }
      ptx::MmaM16N8K16(output[2 * p + i], a[i], b0, b1);
    }
  }
}

// The masses of the chunk's pages times the means of their blocks: pages are the columns of A.
template <int Bits, int Dim>
__device__ __forceinline__ void CodedState<Bits, Dim>::AddMeans(const Fixed& shared) {
  const uint32_t b = ptx::TransposeHalves(PackHalves(mass[0], mass[1]));
#pragma unroll
  for (int f = 0; f < 2 * kPairs; ++f) {
    const uint32_t* means = &shared.value_means[t][16 * f + g];
    const uint32_t a[4] = {means[0], means[8], 0, 0};
    ptx::MmaM16N8K16(output[f], a, b, 0);
  }
  sum[0] += mass[0], sum[1] += mass[1];
  mass[0] = mass[1] = 0;
}

// Puts every warp's state into shared memory, over the basis.
template <int Bits, int Dim>
__device__ __forceinline__ void CodedState<Bits, Dim>::Merge(Fixed* shared) {
  const int warp = threadIdx.x / 32;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    for (int i = 4; i < 32; i *= 2) sum[h] += __shfl_xor_sync(~0u, sum[h], i);
    if (g == 0) {
      shared->maxima[warp][2 * t + h] = reference[h];
      shared->sums[warp][2 * t + h] = sum[h];
    }
#pragma unroll
    for (int f = 0; f < 2 * kPairs; ++f) {
      float* to = &shared->outputs[warp][2 * t + h][16 * f + g];
      to[0] = output[f][h] * (1.0f / LevelUnit(Bits));
      to[8] = output[f][2 + h] * (1.0f / LevelUnit(Bits));
    }
  }
  __syncthreads();
}

// The pages of a chunk. The keys of a page and the values of the one before are one stretch of code
// without a branch: so their instructions fill each other's gaps. Copies come in the order keys,
// values, keys, ..., kStages pages ahead of what is read.
template <int Bits, int Dim>
__device__ __forceinline__ void AttendChunk(CodedState<Bits, Dim>* state,
                                            CodedShared<Bits, Dim>* shared, int turn, int warp,
                                            int* stage) {
  constexpr int kStages = CodedShared<Bits, Dim>::kStages;
  const int lane = state->lane;
  const CodedPage* pages = shared->pages[turn];
  // The page that comes to the place of page i.
  const auto later = [&](int i) -> const CodedPage& {
    const int at = i + kStages;
    return shared->pages[at < kChunk ? turn : turn ^ 1][at % kChunk];
  };
  CodedGroup<Bits, Dim> keys, values;
  float score[4];
  uint32_t weight[2];
  const auto read_keys = [&](int i, int place) {
    keys.template Read<true>(shared->keys[place][warp], lane);
    __syncwarp();
    Request<Bits, Dim>(shared->keys[place][warp], later(i).keys, warp, lane);
  };
  const auto read_values = [&](int i, int place) {
    values.template Read<false>(shared->values[place][warp], lane);
    __syncwarp();
    Request<Bits, Dim>(shared->values[place][warp], later(i).values, warp, lane);
  };
  state->table = shared->table;
  ptx::WaitCopies<2 * kStages - 1>();
  __syncwarp();
  read_keys(0, *stage);
  state->Scores(score, keys, *shared, 0);
  state->Weigh(weight, score, pages[0]);
#pragma unroll 1
  for (int i = 0; i + 1 < kChunk; ++i) {
    const int next = *stage + 1 == kStages ? 0 : *stage + 1;
    ptx::WaitCopies<2 * kStages - 2>();
    __syncwarp();
    read_values(i, *stage);
    read_keys(i + 1, next);
    state->Scores(score, keys, *shared, i + 1);
    state->AddValues(weight, values, i);
    state->Weigh(weight, score, pages[i + 1]);
    *stage = next;
  }
  ptx::WaitCopies<2 * kStages - 1>();
  __syncwarp();
  read_values(kChunk - 1, *stage);
  state->AddValues(weight, values, kChunk - 1);
  *stage = *stage + 1 == kStages ? 0 : *stage + 1;
  state->AddMeans(*shared);
}

// Block (part, KV head and eight of its query heads, row).
template <int Bits, int Dim>
__global__ void __launch_bounds__(kCodedThreads, 2)
    CodedKernel(const __grid_constant__ PageAttention call) {
  extern __shared__ __align__(16) uint8_t memory[];
  auto& shared = *reinterpret_cast<CodedShared<Bits, Dim>*>(memory);
  const LongPart part(call);
  if (!part.any()) return;
  DescribePages<Bits, Dim>(shared.pages[0], call, part, part.first);
  BeginQueries<Bits, Dim>(&shared, part.Queries(call), part.heads, call.scale * kLog2E,
                          call.basis.arrays + 2 * part.kv_head * BasisSideFloats(Dim));
  const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < CodedShared<Bits, Dim>::kStages; ++i) {
    Request<Bits, Dim>(shared.keys[i][warp], shared.pages[0][i].keys, warp, lane);
    Request<Bits, Dim>(shared.values[i][warp], shared.pages[0][i].values, warp, lane);
  }
  CodedState<Bits, Dim> state(lane);
  int stage = 0, turn = 0;
  for (uint32_t at = part.first; at < part.end; at += kChunk, turn ^= 1) {
    __syncthreads();  // the last chunk's terms and descriptions are done with
    DescribePages<Bits, Dim>(shared.pages[turn ^ 1], call, part, at + kChunk);
    TurnChunk<Bits, Dim>(&shared, shared.pages[turn], call.rope, part.heads);
    ProjectChunk<Bits, Dim>(&shared);
    AttendChunk<Bits, Dim>(&state, &shared, turn, warp, &stage);
  }
  state.Merge(&shared);
  for (int h = 0; h < part.heads; ++h) {
    StorePart<Dim, kCodedWarps>(part.State(call, PageKindOfBits(Bits), h), shared, h);
  }
}

template <int Bits, int Dim>
int Launch(const PageAttention& call, CUstream_st* stream) {
  if ((call.kinds >> PageKindOfBits(Bits) & 1) == 0) return cudaSuccess;
  constexpr int kBytes = sizeof(CodedShared<Bits, Dim>);
  static_assert(kBytes <= kCodedSharedBytes);
  if (const cudaError_t error = cudaFuncSetAttribute(
          CodedKernel<Bits, Dim>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes)) {
    return error;
  }
  const dim3 grid(LongPartsMax(call.kv_blocks()), call.kv_blocks(), call.q.rows);
  CodedKernel<Bits, Dim><<<grid, kCodedThreads, kBytes, stream>>>(call);
  return cudaGetLastError();
}

template <int Dim>
int LaunchWidths(const PageAttention& call, CUstream_st* stream) {
  if (const int error = Launch<2, Dim>(call, stream)) return error;
  if (const int error = Launch<3, Dim>(call, stream)) return error;
  if (const int error = Launch<4, Dim>(call, stream)) return error;
  return Launch<8, Dim>(call, stream);
}

}  // namespace

int AttendCodedParts(const PageAttention& call, CUstream_st* stream) {
  if ((call.kinds >> kOtherPages) > 1 && call.basis.arrays == nullptr) return cudaErrorInvalidValue;
  if (call.head_dim == 64) return LaunchWidths<64>(call, stream);
  if (call.head_dim == 128) return LaunchWidths<128>(call, stream);
  return cudaErrorInvalidValue;
}

}  // namespace corpusd::cuda
