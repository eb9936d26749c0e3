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

struct alignas(16) TeamPage {
  int hidden, visible;  // slots [hidden, visible) are seen
  int stage;
};

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
  // Pages that are described at a time. Their barriers are so many that a team which waits for a
  // page of the next turn cannot take this turn's for it: pages of other teams do not arrive in
  // order, and a wait for a phase passes while the phase before is not over.
  static constexpr int kSlots = 2 * kBatch;
  // Whether products are of a whole team, a warpgroup, out of shared memory.
  static constexpr bool kOfGroup = kTeamWarps == 4;
  // A team's weights of a page, times the values' scales: B operands, of a group of tokens in two
  // pieces or of two groups in registers.
  struct Weights {
    union {
      uint32_t pieces[kGroups + 1][2][32];  // the last: sums of weights
      uint4 operands[kGroups / 2][32];
    };
    float4 sums[kHeads / 2][kTeamWarps];  // of two heads: of weights, then of those in `operands`
  };
  struct Stage {
    alignas(16) uint8_t keys[kKeyBytes];
    alignas(16) uint8_t values[kValueBytes];
  };
  struct Fixed {
    uint4 terms[kPairs][32];                  // B operands of the keys, as TermWords says
    alignas(128) Weights weights[kTeams][2];  // of a team's pages in turns
    float constants[kSlots][kHeads];          // what a head adds to all scores of a page
    TeamPage pages[kSlots];                   // page i of the part at i % kSlots
    float head_constants[kHeads];             // the part of all pages
    int offsets[kHeads];  // what the bytes' 128 adds to products of unsigned bytes
    uint32_t unit_bits;   // the terms' unit, a power of two: added to a float's bits
    float raised[kTeams][kTeamWarps][kHeads];
    float warp_sums[kTeams][kTeamWarps][kHeads];
    float maxima[kTeams][kHeads], sums[kTeams][kHeads];
    // Twice, for even and odd lanes: what differs between lanes stays out of the uniform registers,
    // from which every look-up would copy it.
    LevelTable<Bits> table[2];
    // The same for keys: signed bytes where offsets can be spared.
    LevelTable<Bits> key_table[2];
    LongPart part;
    uint64_t full[kSlots], empty[kTeamStagesMax];
  };
  static constexpr int kRoom = (kStillSharedBytes - int{sizeof(Fixed)}) / int{sizeof(Stage)};
  static constexpr int kStages = kRoom < kTeamStagesMax ? kRoom : kTeamStagesMax;
  static_assert(kStages > kTeams && kStages + kBatch <= kSlots && kStages + kTeams <= kSlots);
  static constexpr bool kKeepsQueries = false, kBeginsBesideCopies = true;
  // Stages that the block's begin does not use: their pages are asked for before it.
  static constexpr int kEarly =
      kStages - (int{sizeof(StillBegin<Dim>)} + int{sizeof(Stage)} - 1) / int{sizeof(Stage)};
  static_assert(kEarly > 0 && kEarly <= kBatch);
  union {
    Stage stages[kStages];
    float outputs[kTeams][kHeads][Dim];
  };
  Fixed fixed;
  static_assert(sizeof(outputs) <= sizeof(stages));

  __device__ __forceinline__ StillBegin<Dim>& Begin() {
    return *reinterpret_cast<StillBegin<Dim>*>(&stages[kEarly]);
  }
};

// The warp that supplies the others, 16 pages at a time: a lane knows a page.
template <int Bits, int Dim>
class TeamSupply {
 public:
  using Shared = TeamShared<Bits, Dim>;
  using Tile = CodedTile<Bits, Dim>;
  __device__ __forceinline__ TeamSupply(const PageAttention& call, Shared* shared)
      : call_(call), shared_(shared), lane_(threadIdx.x % 32), g_(lane_ / 4), t_(lane_ % 4) {}

  // Describes the first pages and asks for those that have room beside the block's begin.
  __device__ __forceinline__ void Begin() {
    first_ = Describe(lane_);
    if (lane_ < Shared::kEarly) Ask(first_, lane_, lane_);
  }
  __device__ __forceinline__ void Run() {
    auto& fixed = shared_->fixed;
    const uint32_t pages = fixed.part.end - fixed.part.first;
    int stage = 0, parity = 1;
    Page page = first_;
#pragma unroll 1
    for (uint32_t base = 0; base < pages; base += Shared::kBatch) {
      Constants(page, base % Shared::kSlots);
      const Page next = Describe(base + Shared::kBatch + lane_);
      const uint32_t count = min(pages - base, uint32_t{Shared::kBatch});
#pragma unroll 1
      for (uint32_t i = 0; i < count; ++i) {
        const uint32_t slot = (base + i) % Shared::kSlots;
        ptx::WaitPhase(&fixed.empty[stage], parity);
        if (static_cast<uint32_t>(lane_) == i) {
          if (base + i >= Shared::kEarly) Ask(page, stage, slot);
          fixed.pages[slot] = {page.seen.x, page.seen.y, stage};
        }
        ptx::ArriveWarp(&fixed.full[slot]);
        if (++stage == Shared::kStages) stage = 0, parity ^= 1;
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
  // Asks for a page's tiles. Who waits for them waits for an arrival at the barrier, too.
  __device__ __forceinline__ void Ask(const Page& page, int stage, uint32_t slot) const;
  // A register of 32 columns of a page's means for either half of an operand's columns.
  static __device__ __forceinline__ void MeanBytes(const uint8_t* means, int pair, int t,
                                                   uint32_t* first, uint32_t* second);

  const PageAttention& call_;
  Shared* const shared_;
  const int lane_, g_, t_;
  Page first_ = {nullptr, nullptr, {0, 0}};
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
    const uint4 b = ReadTerms<Shared>(fixed.terms[p], lane_);
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
                                                           uint32_t slot) const {
  if (page.keys == nullptr) return;
  auto& full = shared_->fixed.full[slot];
  ptx::ExpectBytes(&full, Shared::kKeyBytes + Shared::kValueBytes);
  auto& to = shared_->stages[stage];
  ptx::CopyToShared(to.keys, page.keys, Shared::kKeyBytes, &full);
  ptx::CopyToShared(to.values, page.values, Shared::kValueBytes, &full);
}

}  // namespace corpusd::cuda
