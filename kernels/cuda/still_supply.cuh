// kernels/cuda/still_supply.cuh -- what a block of page_still.cu has in shared memory, how pages
// are described, with what their blocks' means add to scores, and asked for.
#pragma once

#include "kernels/cuda/long_part.cuh"
#include "kernels/cuda/ptx/async_copy.cuh"
#include "kernels/cuda/still_begin.cuh"

namespace corpusd::cuda {

constexpr int kStillWarps = 8, kStillThreads = 32 * kStillWarps;
static_assert(kStillThreads == kStillBeginThreads);
constexpr int kStillStagesMax = 8;

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
  static constexpr bool kKeepsQueries = true;
  __device__ __forceinline__ StillBegin<Dim>& Begin() { return begin; }
  union {
    Stage stages[kStages];
    StillBegin<Dim> begin;
    float outputs[kStillWarps][kHeads][Dim];
  };
  Fixed fixed;
  static_assert(sizeof(begin) <= sizeof(stages));
};

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
  ptx::ArriveWarp(&fixed.ready[turn]);
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
