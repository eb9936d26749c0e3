// kernels/cuda/team_supply.cuh -- what a block of page_team.cu has in shared memory, and the warp
// that describes pages, finds what the means of their blocks add to scores, and asks for their
// tiles.
#pragma once

#include "kernels/cuda/long_part.cuh"
#include "kernels/cuda/ptx/async_copy.cuh"
#include "kernels/cuda/still_begin.cuh"

namespace corpusd::cuda {

constexpr int kTeamStagesMax = 16;

// Warps that multiply, beside the one that supplies them: fewer where a warp scores more tokens,
// for which it needs registers.
constexpr int TeamWorkers(int dim) { return dim == 64 ? 10 : 12; }
constexpr int TeamThreads(int dim) { return 32 * (TeamWorkers(dim) + 1); }

template <int Bits, int Dim>
struct TeamShared {
  using Tile = CodedTile<Bits, Dim>;
  static constexpr int kPairs = Dim / 32;  // of fragments: the depth of an integer product
  // A page is a team's work: a warp scores some of its tokens, and sums some dims of its values.
  static constexpr int kTeamWarps = kPairs, kTeams = TeamWorkers(Dim) / kTeamWarps;
  static constexpr int kOwn = kGroups / kTeamWarps;  // groups of 16 tokens that a warp scores
  static constexpr int kKeyBytes = Tile::kCodeBytes + kTileTokens;  // codes and scales
  static constexpr int kValueBytes = kKeyBytes + Dim;               // and means
  static constexpr int kBatch = 16;  // pages that are described together: rows of a product
  static constexpr int kSlots = 2 * kBatch;
  // A team's weights of a page.
  struct Weights {
    uint4 operands[kGroups / 2][32];      // B operands of two groups, times the values' scales
    float4 sums[kHeads / 2][kTeamWarps];  // of two heads: of weights, then of those in `operands`
  };
  struct Stage {
    alignas(16) uint8_t keys[kKeyBytes];
    alignas(16) uint8_t values[kValueBytes];
  };
  struct Fixed {
    uint4 terms[kPairs][32];          // B operands of the keys: high bytes, then low
    Weights weights[kTeams][2];       // of a team's pages in turns
    float constants[kSlots][kHeads];  // what a head adds to all scores of a page
    int2 seen[kSlots];                // slots [x, y) of a page; page i of the part at i % kSlots
    float head_constants[kHeads];     // the part of all pages
    int offsets[kHeads];              // what the bytes' 128 adds to products of unsigned bytes
    uint32_t unit_bits;               // the terms' unit, a power of two: added to a float's bits
    float raised[kTeams][kTeamWarps][kHeads];
    float warp_sums[kTeams][kTeamWarps][kHeads];
    float maxima[kTeams][kHeads], sums[kTeams][kHeads];
    // Twice, for even and odd lanes: what differs between lanes stays out of the uniform registers,
    // from which every look-up would copy it.
    LevelTable<Bits> table[2];
    // The same for keys: signed bytes where offsets can be spared.
    LevelTable<Bits> key_table[2];
    LongPart part;
    uint64_t full[kTeamStagesMax + kTeams], empty[kTeamStagesMax];
  };
  static constexpr int kRoom = (kStillSharedBytes - int{sizeof(Fixed)}) / int{sizeof(Stage)};
  static constexpr int kStages = kRoom < kTeamStagesMax ? kRoom : kTeamStagesMax;
  static_assert(kStages > kTeams && kStages + kBatch <= kSlots);
  // Barriers of pages that come, so many that each is one team's alone. A wait for a phase passes
  // while the phase before is not over, and pages of other teams do not arrive in order.
  static constexpr int kArrivals = (kStages + kTeams - 1) / kTeams * kTeams;
  static constexpr bool kKeepsQueries = false;
  union {
    Stage stages[kStages];
    StillBegin<Dim> begin;
    float outputs[kTeams][kHeads][Dim];
  };
  Fixed fixed;
  static_assert(sizeof(begin) <= sizeof(stages) && sizeof(outputs) <= sizeof(stages));
};

// The warp that supplies the others, 16 pages at a time: a lane knows a page.
template <int Bits, int Dim>
class TeamSupply {
 public:
  using Shared = TeamShared<Bits, Dim>;
  using Tile = CodedTile<Bits, Dim>;
  __device__ __forceinline__ TeamSupply(const PageAttention& call, Shared* shared)
      : call_(call), shared_(shared), lane_(threadIdx.x % 32), g_(lane_ / 4), t_(lane_ % 4) {}

  __device__ __forceinline__ void Run() {
    auto& fixed = shared_->fixed;
    const uint32_t pages = fixed.part.end - fixed.part.first;
    int stage = 0, parity = 1, arrival = 0;
    Page page = Describe(lane_);
#pragma unroll 1
    for (uint32_t base = 0; base < pages; base += Shared::kBatch) {
      if (lane_ < Shared::kBatch) fixed.seen[(base + lane_) % Shared::kSlots] = page.seen;
      Constants(page, base % Shared::kSlots);
      const Page next = Describe(base + Shared::kBatch + lane_);
      __syncwarp();
      const int count = static_cast<int>(min(pages - base, uint32_t{Shared::kBatch}));
#pragma unroll 1
      for (int i = 0; i < count; ++i) {
        ptx::WaitPhase(&fixed.empty[stage], parity);
        if (lane_ == i) {
          Ask(page, stage, arrival);
        } else if (ptx::kWarpArrivals > 1) {
          ptx::Arrive(&fixed.full[arrival]);
        }
        if (++stage == Shared::kStages) stage = 0, parity ^= 1;
        if (++arrival == Shared::kArrivals) arrival = 0;
      }
      page = next;
    }
  }

 private:
  struct Page {
    const uint8_t *keys, *values;  // null: nothing to see
    int2 seen;
  };
  __device__ __forceinline__ Page Describe(uint32_t which) const;
  __device__ __forceinline__ void Constants(const Page& page, uint32_t slot) const;
  __device__ __forceinline__ void Ask(const Page& page, int stage, int arrival) const;
  // A register of 32 columns of a page's means for either half of an operand's columns.
  static __device__ __forceinline__ void MeanBytes(const uint8_t* means, int pair, int t,
                                                   uint32_t* first, uint32_t* second);

  const PageAttention& call_;
  Shared* const shared_;
  const int lane_, g_, t_;
};

template <int Bits, int Dim>
__device__ __forceinline__ typename TeamSupply<Bits, Dim>::Page TeamSupply<Bits, Dim>::Describe(
    uint32_t which) const {
  const LongPart& part = shared_->fixed.part;
  Page described = {nullptr, nullptr, make_int2(0, 0)};
  const uint32_t at = part.first + which;
  if (lane_ >= Shared::kBatch || at >= part.end) return described;
  const DevicePage page = call_.pages[part.row.first_page + at];
  const int visible = VisibleEnd(page, part.row.position);
  if (PageKindOf(page.key_codec, page.value_codec) == PageKindOfBits(Bits) &&
      page.hidden < visible) {
    described = {KeyTile(page, call_.layer, part.kv_head),
                 ValueTile(page, call_.layer, part.kv_head, call_.kv_heads),
                 make_int2(page.hidden, visible)};
  }
  return described;
}

template <int Bits, int Dim>
__device__ __forceinline__ void TeamSupply<Bits, Dim>::MeanBytes(const uint8_t* means, int pair,
                                                                 int t, uint32_t* first,
                                                                 uint32_t* second) {
  uint32_t x[4] = {};
  if (means != nullptr) {
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      x[n] = __ldg(reinterpret_cast<const uint16_t*>(means + 32 * pair + 8 * n + 2 * t));
    }
  }
  const uint32_t u = PermuteBytes(x[0], x[1], 0x5410), v = PermuteBytes(x[2], x[3], 0x5410);
  *first = PermuteBytes(u, v, 0x6240);  // as KeyColumn says
  *second = PermuteBytes(u, v, 0x7351);
}

// The products of the pages' means with the queries: pages are the rows.
template <int Bits, int Dim>
__device__ __forceinline__ void TeamSupply<Bits, Dim>::Constants(const Page& page,
                                                                 uint32_t slot) const {
  auto& fixed = shared_->fixed;
  constexpr int kMeans = Tile::kCodeBytes + kTileTokens;
  const uint8_t* means[2];
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    const auto keys =
        __shfl_sync(~0u, reinterpret_cast<unsigned long long>(page.keys), g_ + 8 * row);
    means[row] = keys == 0 ? nullptr : reinterpret_cast<const uint8_t*>(keys) + kMeans;
  }
  int high[4] = {}, low[4] = {};
#pragma unroll
  for (int p = 0; p < Shared::kPairs; ++p) {
    const uint4 b = fixed.terms[p][lane_];
    uint32_t a[4];
    MeanBytes(means[0], p, t_, &a[0], &a[2]);
    MeanBytes(means[1], p, t_, &a[1], &a[3]);
    ptx::MmaSignedBytes(high, a, b.x, b.y);
    ptx::MmaSignedBytes(low, a, b.z, b.w);
  }
  const float unit =
      __uint_as_float((127u << 23) + fixed.unit_bits) * (kMeanStep * LevelUnit(Bits));
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int head = 2 * t_ + i % 2;
    fixed.constants[slot + g_ + i / 2 * 8][head] =
        fmaf(static_cast<float>(high[i] * 256 + low[i]), unit, fixed.head_constants[head]);
  }
}

template <int Bits, int Dim>
__device__ __forceinline__ void TeamSupply<Bits, Dim>::Ask(const Page& page, int stage,
                                                           int arrival) const {
  auto& full = shared_->fixed.full[arrival];
  if (page.keys == nullptr) return ptx::Arrive(&full);
  ptx::ArriveExpecting(&full, Shared::kKeyBytes + Shared::kValueBytes);
  auto& to = shared_->stages[stage];
  ptx::CopyToShared(to.keys, page.keys, Shared::kKeyBytes, &full);
  ptx::CopyToShared(to.values, page.values, Shared::kValueBytes, &full);
}

}  // namespace corpusd::cuda
