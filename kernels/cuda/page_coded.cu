// AttendCodedParts: a block takes a long stretch of one row's pages for one KV head, those whose
// keys and values are coded in one width, eight at a time. Queries turned into each page's frame go
// through the basis as one product of the tensor core and become integers of 16 bits; scores are
// integer products with the keys' levels as bytes. Weights are halves, and so become the values'
// levels. A warp has one or two groups of 16 tokens of a page; its codes arrive by copies of its
// own, up to four pages ahead. What the means of eight blocks add is a product of rank eight.
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

// What a warp reads of a page's keys or values: its groups' words and scales.
template <int Bits, int Dim>
struct CodedGroups {
  using Tile = CodedTile<Bits, Dim>;
  static constexpr int kCount = GroupsOfWarp(Bits, Dim);
  uint32_t words[kCount][Tile::kWords];
  uint32_t scales[kCount];  // keys: of tokens g, g + 8; values: of 2t, 2t + 8, 2t + 1, 2t + 9

  template <bool IsKey>
  __device__ __forceinline__ void Read(const uint8_t* slot, int lane) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const uint8_t* from = slot + i * Tile::kGroupBytes;
      ReadGroupWords<Tile>(words[i], from, lane);
      from = slot + kCount * Tile::kGroupBytes + i * 16;
      scales[i] = IsKey ? *reinterpret_cast<const uint16_t*>(from + lane / 4 * 2)
                        : *reinterpret_cast<const uint32_t*>(from + lane % 4 * 4);
    }
  }
};

// Asks for what CodedGroups reads of a tile, nothing if there is nothing to see; one group of
// copies. part: of the tile's groups.
template <int Bits, int Dim>
__device__ __forceinline__ void Request(uint8_t* slot, const uint8_t* tile, int part, int lane) {
  using Tile = CodedTile<Bits, Dim>;
  constexpr int kCount = GroupsOfWarp(Bits, Dim), kBytes = kCount * Tile::kGroupBytes;
  if (tile != nullptr) {
    const uint8_t* from = tile + (part * kBytes + lane * 16);
#pragma unroll
    for (int first = 0; first < kBytes; first += 512) {
      const bool inside = kBytes % 512 == 0 || first + lane * 16 < kBytes;
      ptx::CopyAsync16If(inside, slot + first + lane * 16, from + first);
    }
    // Behind all codes lie the scales: another 16 bytes a group, for the first lanes.
    ptx::CopyAsync16If(lane < kCount, slot + kBytes + lane * 16,
                       from + (Tile::kCodeBytes - part * (kBytes - kCount * 16)));
  }
  ptx::CommitCopies();
}

// A warp's softmax over its groups. Lane 4g + t has heads 2t, 2t + 1; scores of tokens g, g + 8;
// value sums of dims g, g + 8 of each fragment, in units of levels.
template <int Bits, int Dim>
struct CodedState {
  static constexpr int kPairs = Dim / 32, kCount = GroupsOfWarp(Bits, Dim);
  using Fixed = CodedFixed<Bits, Dim>;
  using Groups = CodedGroups<Bits, Dim>;
  LevelTable<Bits> table;
  const int lane, g = lane / 4, t = lane % 4;
  float reference[2] = {kNoReference, kNoReference}, sum[2] = {};
  float output[2 * kPairs][4] = {};
  float extra[4] = {};  // 0, 1: the mass of page g of the chunk; 2, 3: what outputs have too much

  __device__ __forceinline__ explicit CodedState(int lane_of_warp) : lane(lane_of_warp) {}
  // at: of the page in its chunk.
  __device__ __forceinline__ void Scores(float (&score)[kCount][4], const Groups& keys,
                                         const Fixed& shared, int at) const;
  // first_slot: of the warp's in the page.
  __device__ __forceinline__ void Weigh(uint32_t (&weight)[kCount][2], float (&score)[kCount][4],
                                        const CodedPage& page, int first_slot);
  __device__ __forceinline__ void AddValues(const uint32_t (&weight)[kCount][2],
                                            const Groups& values, int at);
  __device__ __forceinline__ void AddMeans(const Fixed& shared);
  __device__ __forceinline__ void Merge(Fixed* shared);

 private:
  __device__ __forceinline__ void Raise(const float (&score)[kCount][4]);
};

template <int Bits, int Dim>
__device__ __forceinline__ void CodedState<Bits, Dim>::Scores(float (&score)[kCount][4],
                                                              const Groups& keys,
                                                              const Fixed& shared, int at) const {
  const int2 offset = *reinterpret_cast<const int2*>(&shared.offsets[at][2 * t]);
  int high[kCount][4] = {}, low[kCount][4];
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    low[i][0] = low[i][2] = -offset.x;
    low[i][1] = low[i][3] = -offset.y;
  }
#pragma unroll
  for (int p = 0; p < kPairs; ++p) {
    const uint4 b = shared.terms[at][p][lane];
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      uint32_t a[4];
      KeyBytes<Bits>(table, keys.words[i], p, a);
      ptx::MmaBytes(high[i], a, b.x, b.y);
      ptx::MmaBytes(low[i], a, b.z, b.w);
    }
  }
  const float2 unit = *reinterpret_cast<const float2*>(&shared.level_units[2 * t]);
  const float2 constant = *reinterpret_cast<const float2*>(&shared.constants[at][2 * t]);
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      const float scale = __uint_as_float(ScaleBits(keys.scales[i] >> 8 * row & 0xFF));
      const int x = 2 * row, y = 2 * row + 1;
      score[i][x] =
          fmaf(static_cast<float>(high[i][x] * 256 + low[i][x]), scale * unit.x, constant.x);
      score[i][y] =
          fmaf(static_cast<float>(high[i][y] * 256 + low[i][y]), scale * unit.y, constant.y);
    }
  }
}

// The higher of a warp's scores of one head.
template <int Count>
__device__ __forceinline__ float Highest(const float (&score)[Count][4], int head) {
  float highest = fmaxf(score[0][head], score[0][2 + head]);
#pragma unroll
  for (int i = 1; i < Count; ++i) {
    highest = fmaxf(highest, fmaxf(score[i][head], score[i][2 + head]));
  }
  return highest;
}

// Moves the reference up where a score calls for it, and with it what was summed so far.
template <int Bits, int Dim>
__device__ __forceinline__ void CodedState<Bits, Dim>::Raise(const float (&score)[kCount][4]) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float highest = Highest(score, h);
    for (int i = 4; i < 32; i *= 2) highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, i));
    const float raised = fmaxf(reference[h], highest - kLift);
    const float factor = ptx::Exp2(reference[h] - raised);
    reference[h] = raised;
    sum[h] *= factor;
    extra[h] *= factor;
    extra[2 + h] *= factor;
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
__device__ __forceinline__ void CodedState<Bits, Dim>::Weigh(uint32_t (&weight)[kCount][2],
                                                             float (&score)[kCount][4],
                                                             const CodedPage& page,
                                                             int first_slot) {
  if (page.hidden > 0 || page.visible < kTileTokens) {
#pragma unroll
    for (int i = 0; i < 4 * kCount; ++i) {
      const int slot = first_slot + i / 4 * kGroupTokens + g + i % 4 / 2 * 8;
      if (slot < page.hidden || slot >= page.visible) score[i / 4][i % 4] = kNoScore;
    }
  }
  const bool above =
      Highest(score, 0) > reference[0] + kCeiling || Highest(score, 1) > reference[1] + kCeiling;
  if (__any_sync(~0u, above)) Raise(score);
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      weight[i][row] =
          ptx::TransposeHalves(PackHalves(ptx::Exp2(score[i][2 * row] - reference[0]),
                                          ptx::Exp2(score[i][2 * row + 1] - reference[1])));
    }
  }
}

// Levels are multiplied as 1152 + level, as they come out of a look-up; one product more counts
// what that adds.
template <int Bits, int Dim>
__device__ __forceinline__ void CodedState<Bits, Dim>::AddValues(
    const uint32_t (&weight)[kCount][2], const Groups& values, int at) {
  constexpr uint32_t kMinusBias = 0xE480E480u;  // two halves of -1152
  const uint32_t ones = g == at ? 0x3C003C00u : 0u;
  const uint32_t rows[4] = {ones, 0, ones, 0};
  const uint32_t biases[4] = {0, kMinusBias, 0, kMinusBias};
  uint32_t b[kCount][2];
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    ptx::MmaM16N8K16(extra, rows, weight[i][0], weight[i][1]);
    // Tokens in the order of ValueHalves: 2t, 2t + 8, then 2t + 1, 2t + 9.
    b[i][0] = MultiplyHalves(PermuteBytes(weight[i][0], weight[i][1], 0x5410),
                             ScaleHalves(values.scales[i], 0x4140));
    b[i][1] = MultiplyHalves(PermuteBytes(weight[i][0], weight[i][1], 0x7632),
                             ScaleHalves(values.scales[i], 0x4342));
    ptx::MmaM16N8K16(extra, biases, b[i][0], b[i][1]);
  }
#pragma unroll
  for (int p = 0; p < kPairs; ++p) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      uint32_t a[2][4];
      ValueHalves<Bits>(table, values.words[i], p, a);
      ptx::MmaM16N8K16(output[2 * p], a[0], b[i][0], b[i][1]);
      ptx::MmaM16N8K16(output[2 * p + 1], a[1], b[i][0], b[i][1]);
    }
  }
}

// The masses of the chunk's pages times the means of their blocks: pages are the columns of A.
template <int Bits, int Dim>
__device__ __forceinline__ void CodedState<Bits, Dim>::AddMeans(const Fixed& shared) {
  const uint32_t b = ptx::TransposeHalves(PackHalves(extra[0], extra[1]));
#pragma unroll
  for (int f = 0; f < 2 * kPairs; ++f) {
    const uint32_t* means = &shared.value_means[t][16 * f + g];
    const uint32_t a[4] = {means[0], means[8], 0, 0};
    ptx::MmaM16N8K16(output[f], a, b, 0);
    output[f][0] += extra[2], output[f][2] += extra[2];
    output[f][1] += extra[3], output[f][3] += extra[3];
  }
  sum[0] += extra[0], sum[1] += extra[1];
  extra[0] = extra[1] = extra[2] = extra[3] = 0;
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

// What a warp does of a chunk: every kTeams-th page, a part of its groups.
template <int Bits, int Dim>
struct CodedWarp {
  using Shared = CodedShared<Bits, Dim>;
  static constexpr int kTeams = GroupsOfWarp(Bits, Dim), kStages = Shared::kStages;
  static constexpr int kPages = kChunk / kTeams;
  static_assert(kPages % kStages == 0);
  const int warp, lane, team = warp * kTeams / kCodedWarps, part = warp % (kCodedWarps / kTeams);

  // Page i of the warp's; those behind the chunk's are of the next.
  __device__ __forceinline__ const CodedPage& Page(const Shared& shared, int turn, int i) const {
    return shared.pages[i < kPages ? turn : turn ^ 1][i % kPages * kTeams + team];
  }
  __device__ __forceinline__ void Begin(Shared* shared, int turn) const;
  __device__ __forceinline__ void Attend(CodedState<Bits, Dim>* state, Shared* shared,
                                         int turn) const;
};

// Copies come in the order keys, values, keys, ..., kStages pages ahead of what is read.
template <int Bits, int Dim>
__device__ __forceinline__ void CodedWarp<Bits, Dim>::Begin(Shared* shared, int turn) const {
#pragma unroll
  for (int i = 0; i < kStages; ++i) {
    const CodedPage& page = Page(*shared, turn, i);
    Request<Bits, Dim>(shared->keys[i][warp], page.keys, part, lane);
    Request<Bits, Dim>(shared->values[i][warp], page.values, part, lane);
  }
}

// The keys of a page and the values of the one before are one stretch of code without a branch: so
// their instructions fill each other's gaps.
template <int Bits, int Dim>
__device__ __forceinline__ void CodedWarp<Bits, Dim>::Attend(CodedState<Bits, Dim>* state,
                                                             Shared* shared, int turn) const {
  constexpr int kCount = GroupsOfWarp(Bits, Dim);
  const int first_slot = part * kCount * kGroupTokens;
  CodedGroups<Bits, Dim> keys, values;
  float score[kCount][4];
  uint32_t weight[kCount][2];
  const auto request_keys = [&](int i) {
    Request<Bits, Dim>(shared->keys[i % kStages][warp], Page(*shared, turn, i + kStages).keys, part,
                       lane);
  };
  const auto request_values = [&](int i) {
    Request<Bits, Dim>(shared->values[i % kStages][warp], Page(*shared, turn, i + kStages).values,
                       part, lane);
  };
  state->table = shared->table[lane % 2];
  ptx::WaitCopies<2 * kStages - 1>();
  __syncwarp();
  keys.template Read<true>(shared->keys[0][warp], lane);
  __syncwarp();
  request_keys(0);
  state->Scores(score, keys, *shared, team);
  state->Weigh(weight, score, Page(*shared, turn, 0), first_slot);
  const int last = ptx::Opaque(kPages - 1);
#pragma unroll 1
  for (int i = 0; i < last; ++i) {
    const int at = i * kTeams + team;
    ptx::WaitCopies<2 * kStages - 2>();
    __syncwarp();
    values.template Read<false>(shared->values[i % kStages][warp], lane);
    keys.template Read<true>(shared->keys[(i + 1) % kStages][warp], lane);
    __syncwarp();
    request_values(i);
    request_keys(i + 1);
    state->Scores(score, keys, *shared, at + kTeams);
    state->AddValues(weight, values, at);
    state->Weigh(weight, score, Page(*shared, turn, i + 1), first_slot);
  }
  ptx::WaitCopies<2 * kStages - 1>();
  __syncwarp();
  values.template Read<false>(shared->values[(kPages - 1) % kStages][warp], lane);
  __syncwarp();
  request_values(kPages - 1);
  state->AddValues(weight, values, (kPages - 1) * kTeams + team);
  state->AddMeans(*shared);
}

// Block (part, KV head and eight of its query heads, row).
template <int Bits, int Dim>
__global__ void __launch_bounds__(kCodedThreads, 2)
    CodedKernel(const __grid_constant__ PageAttention call) {
  extern __shared__ __align__(16) uint8_t memory[];
  auto& shared = *reinterpret_cast<CodedShared<Bits, Dim>*>(memory);
  {
    const LongPart part(call);
    if (!part.any()) return;
    if (threadIdx.x == 0) shared.part = part;  // for later: registers are few
    DescribePages<Bits, Dim>(shared.pages[part.first / kChunk % 2], call, part, part.first);
    BeginQueries<Bits, Dim>(&shared, part.Queries(call), part.heads, call.scale * kLog2E,
                            call.basis.arrays + 2 * part.kv_head * BasisSideFloats(Dim));
  }
  const CodedWarp<Bits, Dim> warp{__shfl_sync(~0u, static_cast<int>(threadIdx.x / 32), 0),
                                  static_cast<int>(threadIdx.x % 32)};
  warp.Begin(&shared, static_cast<int>(shared.part.first / kChunk % 2));
  CodedState<Bits, Dim> state(warp.lane);
  for (uint32_t at = shared.part.first; at < shared.part.end; at += kChunk) {
    const int turn = static_cast<int>(at / kChunk % 2);
    __syncthreads();  // the last chunk's terms and descriptions are done with
    DescribePages<Bits, Dim>(shared.pages[turn ^ 1], call, shared.part, at + kChunk);
    TurnChunk<Bits, Dim>(&shared, shared.pages[turn], call.rope, shared.part.heads);
    ProjectChunk<Bits, Dim>(&shared);
    warp.Attend(&state, &shared, turn);
  }
  state.Merge(&shared);
  for (int h = 0; h < shared.part.heads; ++h) {
    StorePart<Dim, kCodedWarps>(shared.part.State(call, PageKindOfBits(Bits), h), shared, h);
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
  if (call.rope.cos_sin == nullptr) return AttendStillParts(call, stream);
  if (call.head_dim == 64) return LaunchWidths<64>(call, stream);
  if (call.head_dim == 128) return LaunchWidths<128>(call, stream);
  return cudaErrorInvalidValue;
}

}  // namespace corpusd::cuda
