// kernels/cuda/still_supply.cuh -- what a block of page_still.cu has in shared memory, how it
// begins (its queries as integers of 16 bits), how pages are described, with what their blocks'
// means add to scores, and asked for.
#pragma once

#include "kernels/cuda/level_bytes.h"
#include "kernels/cuda/long_part.cuh"
#include "kernels/cuda/page_part.cuh"
#include "kernels/cuda/ptx/async_copy.cuh"
#include "kernels/cuda/ptx/warpgroup.cuh"

namespace corpusd::cuda {

constexpr int kStillWarps = 8, kStillThreads = 32 * kStillWarps;
// Of shared memory, when two blocks share a multiprocessor of 228 KB.
constexpr int kStillSharedBytes = 113 * 1024;
constexpr int kStillStagesMax = 8;
// The largest coordinate of a block's queries is this integer at most: 256 * high + low, signed
// bytes.
constexpr float kStillLargestTerm = 32000.0f;

// Groups of 16 tokens that a warp takes of a page: as many as its registers hold. So many teams of
// warps take turns with the pages.
constexpr int StillGroups(int bits) { return bits == 8 ? 1 : 2; }

struct alignas(32) StillPage {
  const uint8_t *keys, *values;  // null: nothing to see
  int hidden, visible;
};

template <int Bits, int Dim>
struct StillShared {
  using Tile = CodedTile<Bits, Dim>;
  static constexpr int kPairs = Dim / 32;  // of fragments: the depth of an integer product
  static constexpr int kTileBytes = Tile::kCodeBytes + kTileTokens;  // codes and scales
  // Chunks that are described at a time: those in work, and so many to come.
  static constexpr int kLead = Bits == 8 ? 1 : 2, kTurns = 2 * kLead;
  struct Stage {
    alignas(16) uint8_t keys[kTileBytes];
    alignas(16) uint8_t values[kTileBytes];
  };
  struct Fixed {
    uint4 terms[kPairs][32];                        // B operands of the keys: high bytes, then low
    uint2 queries[Dim / 16][32];                    // halves: B operands of the means of blocks
    uint32_t key_means[kChunk][Dim / 2 + 4];        // halves, rows 16 bytes apart in the banks
    uint32_t value_means[kTurns][kChunk / 2][Dim];  // halves of two pages
    float constants[kTurns * kChunk][kHeads];       // what a head adds to all scores of a page
    StillPage pages[kTurns * kChunk];               // page i of the part at i % of the room
    float head_constants[kHeads];                   // the part of all pages
    int offsets[kHeads];  // what the bytes' 128 adds to the products, if they are unsigned
    uint32_t unit_bits;   // the terms' unit, a power of two: added to a float's bits
    float maxima[kStillWarps][kHeads], sums[kStillWarps][kHeads];
    // Twice, for even and odd lanes: what differs between lanes stays out of the uniform registers,
    // from which every look-up would copy it.
    LevelTable<Bits> table[2];
    // The same for keys: signed bytes where offsets can be spared.
    LevelTable<Bits> key_table[2];
    LongPart part;
    uint64_t full[kStillStagesMax], empty[kStillStagesMax];
    uint64_t ready[kTurns], done[kTurns];  // descriptions, means and constants of a chunk
  };
  static constexpr int kRoom = (kStillSharedBytes - int{sizeof(Fixed)}) / int{sizeof(Stage)};
  static constexpr int kStages = kRoom < kStillStagesMax ? kRoom : kStillStagesMax;
  // So many pages ahead a page is asked for: where there is room, the others may be a page behind.
  static constexpr int kAhead = kStages < 4 ? kStages - 1 : kStages - 2;
  static_assert(kStages >= 2);
  struct Begin {
    float rows[Dim][kHeads];                           // scaled queries
    float products[kStillThreads / Dim][kHeads][Dim];  // of teams; the first becomes the sum
    float largest[kStillWarps];
  };
  union {
    Stage stages[kStages];
    Begin begin;
    float outputs[kStillWarps][kHeads][Dim];
  };
  Fixed fixed;
  static_assert(sizeof(Begin) <= sizeof(stages));
};

// The queries in coordinates, as terms and as halves. All threads of the block.
template <int Bits, int Dim>
__device__ void BeginStill(StillShared<Bits, Dim>* shared, const float* q, int heads, float scale,
                           const float* basis) {
  auto& [rows, products, largest] = shared->begin;
  auto& fixed = shared->fixed;
  const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
  constexpr int kTeams = kStillThreads / Dim, kOwn = Dim / kTeams;
  for (int i = thread; i < kHeads * Dim; i += kStillThreads) {
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
    const int j = thread % Dim, team = thread / Dim;
    const float* from = basis + BasisPartOffset(BasisPart::kQuery, Dim) + team * kOwn * Dim + j;
    float sums[kHeads] = {};
#pragma unroll 16
    for (int i = 0; i < kOwn; ++i) {
      const float x = __ldg(from + i * Dim);
#pragma unroll
      for (int h = 0; h < kHeads; ++h) sums[h] = fmaf(rows[team * kOwn + i][h], x, sums[h]);
    }
#pragma unroll
    for (int h = 0; h < kHeads; ++h) products[team][h][j] = sums[h];
  }
  __syncthreads();
  if (warp < kHeads) {  // a warp a head
    const float* means = basis + BasisPartOffset(BasisPart::kMeanCoordinates, Dim);
    float highest = 0, constant = 0;
    for (int j = lane; j < Dim; j += 32) {
      float x = products[0][warp][j];
#pragma unroll
      for (int team = 1; team < kTeams; ++team) x += products[team][warp][j];
      products[0][warp][j] = x;
      highest = fmaxf(highest, fabsf(x));
      constant = fmaf(x, __ldg(means + j), constant);
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
  // The power of two above what the largest coordinate asks for.
  const float wanted = highest * (1.0f / (LevelUnit(Bits) * kStillLargestTerm));
  const int exponent =
      highest > 0 ? max(static_cast<int>(__float_as_uint(wanted) >> 23) - 126, -60) : 0;
  const float inverse =
      __uint_as_float(static_cast<uint32_t>(127 - exponent) << 23) * (1.0f / LevelUnit(Bits));
  if (thread == 0) fixed.unit_bits = static_cast<uint32_t>(exponent) << 23;
  const int g = lane / 4, t = lane % 4;
  for (int pair = warp; pair < Dim / 32; pair += kStillThreads / 32) {
    uint32_t u[4][2];
#pragma unroll
    for (int n = 0; n < 4; ++n) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const float x = products[0][g][32 * pair + 8 * n + 2 * t + c];
        u[n][c] = static_cast<uint32_t>(__float2int_rn(x * inverse) + 128);
      }
    }
    uint4 terms;  // as KeyColumn says
    if constexpr (Bits == 8) {
      SplitBytes(u[0][0], u[0][1], u[1][0], u[1][1], &terms.x, &terms.z);
      SplitBytes(u[2][0], u[2][1], u[3][0], u[3][1], &terms.y, &terms.w);
    } else {
      SplitBytes(u[0][0], u[2][0], u[1][0], u[3][0], &terms.x, &terms.z);
      SplitBytes(u[0][1], u[2][1], u[1][1], u[3][1], &terms.y, &terms.w);
    }
    fixed.terms[pair][lane] = terms;
  }
  for (int f = warp; f < Dim / 16; f += kStillThreads / 32) {
    const float* x = &products[0][g][16 * f + 2 * t];
    fixed.queries[f][lane] = make_uint2(PackHalves(x[0], x[1]), PackHalves(x[8], x[9]));
  }
  if (warp < kHeads) {
    int total = 0;
    for (int j = lane; j < Dim; j += 32) total += __float2int_rn(products[0][warp][j] * inverse);
    total = __reduce_add_sync(~0u, total);
    if (lane == 0) fixed.offsets[warp] = 128 * total;
  }
  ptx::FenceShared();  // copies will come where the queries were
  __syncthreads();
}

// What the warps do beside multiplying: warp w describes page w of the chunk behind the one in
// work, with what its block's means add; and every page is asked for by one warp, `kAhead` pages
// before it is read.
template <int Bits, int Dim>
class StillSupply {
 public:
  using Shared = StillShared<Bits, Dim>;
  using Tile = CodedTile<Bits, Dim>;
  __device__ __forceinline__ StillSupply(const PageAttention& call, Shared* shared)
      : call_(call), shared_(shared) {}

  // Page `which` of the part; asks for its means. All lanes of one warp, which then Publish.
  __device__ __forceinline__ void Describe(uint32_t which);
  __device__ __forceinline__ void Publish(uint32_t which, int lane) const;
  // Asks for the codes of page `which`, once it is published. One thread.
  __device__ __forceinline__ void Ask(uint32_t which) const;

 private:
  static constexpr int kMeans = Tile::kCodeBytes + kTileTokens;
  template <int I>
  static __device__ __forceinline__ float Byte(uint32_t bytes) {
    return static_cast<float>(static_cast<int8_t>(bytes >> 8 * I & 0xFF));
  }

  const PageAttention& call_;
  Shared* const shared_;
  uint32_t key_means_ = 0, value_means_ = 0;  // four dims of this lane
};

template <int Bits, int Dim>
__device__ __forceinline__ void StillSupply<Bits, Dim>::Describe(uint32_t which) {
  auto& fixed = shared_->fixed;
  const LongPart& part = fixed.part;
  const int lane = threadIdx.x % 32;
  const uint32_t chunk = which / kChunk, turn = chunk % Shared::kTurns;
  if (chunk >= Shared::kTurns) {  // what was described there must be done with
    ptx::WaitPhase(&fixed.done[turn], static_cast<int>((chunk / Shared::kTurns - 1) % 2));
  }
  StillPage described = {nullptr, nullptr, 0, 0};
  key_means_ = value_means_ = 0;
  const uint32_t at = part.first + which;
  if (at < part.end) {
    const DevicePage page = call_.pages[part.row.first_page + at];
    const int visible = VisibleEnd(page, part.row.position);
    if (PageKindOf(page.key_codec, page.value_codec) == PageKindOfBits(Bits) &&
        page.hidden < visible) {
      described = {KeyTile(page, call_.layer, part.kv_head),
                   ValueTile(page, call_.layer, part.kv_head, call_.kv_heads), page.hidden,
                   visible};
      if (lane < Dim / 4) {
        key_means_ = __ldg(reinterpret_cast<const uint32_t*>(described.keys + kMeans) + lane);
        value_means_ = __ldg(reinterpret_cast<const uint32_t*>(described.values + kMeans) + lane);
      }
    }
  }
  if (lane == 0) fixed.pages[which % (Shared::kTurns * kChunk)] = described;
}

template <int Bits, int Dim>
__device__ __forceinline__ void StillSupply<Bits, Dim>::Publish(uint32_t which, int lane) const {
  auto& fixed = shared_->fixed;
  const uint32_t turn = which / kChunk % Shared::kTurns, p = which % kChunk;
  constexpr float kStep = kMeanStep * LevelUnit(Bits);
  auto& own = fixed.key_means[p];
  if (lane < Dim / 4) {
    const uint32_t x = key_means_, y = value_means_;
    *reinterpret_cast<uint2*>(&own[2 * lane]) =
        make_uint2(PackHalves(Byte<0>(x) * kMeanStep, Byte<1>(x) * kMeanStep),
                   PackHalves(Byte<2>(x) * kMeanStep, Byte<3>(x) * kMeanStep));
    auto* halves = reinterpret_cast<uint16_t*>(&fixed.value_means[turn][p / 2][4 * lane]) + p % 2;
    const uint32_t low = PackHalves(Byte<0>(y) * kStep, Byte<1>(y) * kStep);
    const uint32_t high = PackHalves(Byte<2>(y) * kStep, Byte<3>(y) * kStep);
    halves[0] = low & 0xFFFF, halves[2] = low >> 16;
    halves[4] = high & 0xFFFF, halves[6] = high >> 16;
  }
  __syncwarp();
  float c[4] = {};
#pragma unroll
  for (int f = 0; f < Dim / 16; ++f) {  // all rows of A are the page
    const uint32_t first = own[8 * f + lane % 4], second = own[8 * f + 4 + lane % 4];
    const uint32_t a[4] = {first, first, second, second};
    const uint2 b = fixed.queries[f][lane];
    ptx::MmaM16N8K16(c, a, b.x, b.y);
  }
  const int t = lane % 4;
  if (lane < 4) {
    fixed.constants[turn * kChunk + p][2 * t] = c[0] + fixed.head_constants[2 * t];
    fixed.constants[turn * kChunk + p][2 * t + 1] = c[1] + fixed.head_constants[2 * t + 1];
  }
  __syncwarp();
  if (lane == 0) ptx::Arrive(&fixed.ready[turn]);
}

template <int Bits, int Dim>
__device__ __forceinline__ void StillSupply<Bits, Dim>::Ask(uint32_t which) const {
  auto& fixed = shared_->fixed;
  const uint32_t chunk = which / kChunk, turn = chunk % Shared::kTurns;
  ptx::WaitPhase(&fixed.ready[turn], static_cast<int>(chunk / Shared::kTurns % 2));
  const StillPage& page = fixed.pages[which % (Shared::kTurns * kChunk)];
  const uint32_t stage = which % Shared::kStages;
  ptx::WaitPhase(&fixed.empty[stage], static_cast<int>(which / Shared::kStages % 2 ^ 1));
  if (page.keys == nullptr) return ptx::Arrive(&fixed.full[stage]);
  ptx::ArriveExpecting(&fixed.full[stage], 2 * Shared::kTileBytes);
  auto& to = shared_->stages[stage];
  ptx::CopyToShared(to.keys, page.keys, Shared::kTileBytes, &fixed.full[stage]);
  ptx::CopyToShared(to.values, page.values, Shared::kTileBytes, &fixed.full[stage]);
}

}  // namespace corpusd::cuda
