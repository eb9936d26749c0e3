// kernels/cuda/lone_supply.cuh -- what a part of page_lone.cu has in shared memory, and what a
// warp does there for itself: it describes its pages, finds what the means of their blocks add to
// scores, and asks for their codes, some groups of 16 tokens at a time.
#pragma once

#include "kernels/cuda/long_part.cuh"
#include "kernels/cuda/ptx/async_copy.cuh"
#include "kernels/cuda/ptx/dependent_launch.cuh"
#include "kernels/cuda/still_begin.cuh"

namespace corpusd::cuda {

constexpr int kLoneWarps = 8, kLoneThreads = 32 * kLoneWarps;  // of a part
constexpr int kLoneParts = 2;                                  // of a block

struct alignas(32) LonePage {
  const uint8_t *keys, *values;  // null: nothing to see
  int hidden, visible;           // slots [hidden, visible) are seen
};

template <int Bits, int Dim>
struct LoneShared {
  using Tile = CodedTile<Bits, Dim>;
  static constexpr int kPairs = Dim / 32;  // of fragments: the depth of an integer product
  static constexpr int kBatch = 8;         // pages of a warp that are described together
  static constexpr int kRing = 2 * kBatch;
  static constexpr int kStep = 2;  // groups that are multiplied together
  // Groups of a unit, which is copied at a time; units of a page, and those that a warp has room
  // for.
  static constexpr int kUnitGroups = Bits == 4 && Dim == 128 ? 2 : 4;
  static constexpr int kUnits = kGroups / kUnitGroups;
  static constexpr int kUnitBytes = kUnitGroups * Tile::kGroupBytes;  // of keys, of values
  static constexpr int kSlots = Dim == 128 && Bits == 3 ? 2 : Dim == 64 && Bits == 2 ? 4 : 3;
  // Pages whose scales are kept: those of the units asked for and of the one in work.
  static constexpr int kSides = (kSlots + kUnits - 2) / kUnits + 1;
  struct Unit {
    alignas(16) uint8_t keys[kUnitBytes], values[kUnitBytes];
  };
  struct Sides {  // the scales of a page's tokens
    alignas(16) uint8_t keys[kTileTokens], values[kTileTokens];
  };
  struct Own {  // of a warp; page i of its own at i % kRing
    Unit units[kSlots];
    Sides sides[kSides];
    LonePage pages[kRing];
    float constants[kRing][kHeads];  // what a head adds to all scores of a page
  };
  struct Fixed {
    uint4 terms[kPairs][32];       // B operands of the keys: high bytes, then low
    float head_constants[kHeads];  // the part of all pages
    int offsets[kHeads];           // what the bytes' 128 adds to the products, if they are unsigned
    uint32_t unit_bits;            // the terms' unit, a power of two: added to a float's bits
    // Aligned: loads of several numbers would take in what other threads write beside them.
    alignas(16) float maxima[kLoneWarps][kHeads];
    float sums[kLoneWarps][kHeads];
    // Twice, for even and odd lanes: what differs between lanes stays out of the uniform registers,
    // from which every look-up would copy it. For keys: signed bytes where offsets can be spared.
    LevelTable<Bits> table[2], key_table[2];
    LongPart part;
  };
  union {
    Own own[kLoneWarps];
    float outputs[kLoneWarps][kHeads][Dim + 4];  // banks apart
  };
  Fixed fixed;
};

template <int Bits, int Dim>
class LoneSupply {
 public:
  using Shared = LoneShared<Bits, Dim>;
  using Tile = CodedTile<Bits, Dim>;
  __device__ __forceinline__ LoneSupply(const PageAttention& call, Shared* shared, int warp)
      : call_(call), shared_(shared), own_(shared->own[warp]), warp_(warp) {}

  // Every eighth page of the part.
  __device__ __forceinline__ uint32_t pages() const {
    return (shared_->fixed.part.pages() + kLoneWarps - 1 - warp_) / kLoneWarps;
  }
  // Pages [8 batch, 8 (batch + count)) of the warp's; count: 1 or 2.
  __device__ __forceinline__ void Describe(uint32_t batch, int count = 1) const;
  __device__ __forceinline__ void FindConstants(uint32_t batch) const;
  // Asks for a unit, counted over all pages of the warp, if there is one; a group of copies of each
  // lane in any case. Its page is described.
  __device__ __forceinline__ void Ask(uint32_t unit, int slot) const;

 private:
  const PageAttention& call_;
  Shared* const shared_;
  typename Shared::Own& own_;
  const int warp_;
};

template <int Bits, int Dim>
__device__ __forceinline__ void LoneSupply<Bits, Dim>::Describe(uint32_t batch, int count) const {
  constexpr int kMeans = Tile::kCodeBytes + kTileTokens;
  const LongPart& part = shared_->fixed.part;
  const uint32_t lane = threadIdx.x % 32;
  if (lane < Shared::kBatch * count) {
    const uint32_t which = batch * Shared::kBatch + lane;
    const uint32_t at = part.first + warp_ + which * kLoneWarps;
    LonePage described = {nullptr, nullptr, 0, 0};
    if (at < part.end) {
      const DevicePage page = call_.pages[part.row.first_page + at];
      const int visible = VisibleEnd(page, part.row.position);
      if (PageKindOf(page.key_codec, page.value_codec) == PageKindOfBits(Bits) &&
          page.hidden < visible) {
        described = {KeyTile(page, call_.layer, part.kv_head),
                     ValueTile(page, call_.layer, part.kv_head, call_.kv_heads), page.hidden,
                     visible};
        ptx::PrefetchL2(described.keys + kMeans);
        ptx::PrefetchL2(described.values + kMeans);
      }
    }
    own_.pages[which % Shared::kRing] = described;
  }
  __syncwarp();
}

// The products of the pages' means with the queries: pages are the rows.
template <int Bits, int Dim>
__device__ __forceinline__ void LoneSupply<Bits, Dim>::FindConstants(uint32_t batch) const {
  constexpr int kMeans = Tile::kCodeBytes + kTileTokens;
  const auto& fixed = shared_->fixed;
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const uint32_t place = (batch * Shared::kBatch + g) % Shared::kRing;
  const uint8_t* const keys = own_.pages[place].keys;
  int high[4] = {}, low[4] = {};
#pragma unroll
  for (int p = 0; p < Shared::kPairs; ++p) {
    uint32_t x[4] = {};
    if (keys != nullptr) {
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        x[n] = __ldg(reinterpret_cast<const uint16_t*>(keys + kMeans + 32 * p + 8 * n + 2 * t));
      }
    }
    const uint32_t u = PermuteBytes(x[0], x[1], 0x5410), v = PermuteBytes(x[2], x[3], 0x5410);
    // As KeyColumn says; rows 8 to 15 are empty.
    const uint32_t a[4] = {PermuteBytes(u, v, 0x6240), 0, PermuteBytes(u, v, 0x7351), 0};
    const uint4 b = fixed.terms[p][lane];
    ptx::MmaSignedBytes(high, a, b.x, b.y);
    ptx::MmaSignedBytes(low, a, b.z, b.w);
  }
  const float unit =
      __uint_as_float((127u << 23) + fixed.unit_bits) * (kMeanStep * LevelUnit(Bits));
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    own_.constants[place][2 * t + h] =
        fmaf(static_cast<float>(high[h] * 256 + low[h]), unit, fixed.head_constants[2 * t + h]);
  }
  __syncwarp();
}

template <int Bits, int Dim>
__device__ __forceinline__ void LoneSupply<Bits, Dim>::Ask(uint32_t unit, int slot) const {
  constexpr int kBytes = Shared::kUnitBytes, kRound = 32 * 16;
  static_assert(kBytes % kRound == 0 && 2 * kTileTokens <= kRound);
  const uint32_t which = unit / Shared::kUnits, part = unit % Shared::kUnits;
  const LonePage& page = own_.pages[which % Shared::kRing];
  const uint8_t *const keys = page.keys, *const values = page.values;
  if (keys != nullptr) {
    const int lane = threadIdx.x % 32;
    auto& to = own_.units[slot];
#pragma unroll
    for (int at = 0; at < kBytes; at += kRound) {
      ptx::CopyAsync16(to.keys + 16 * lane + at, keys + part * kBytes + 16 * lane + at);
    }
#pragma unroll
    for (int at = 0; at < kBytes; at += kRound) {
      ptx::CopyAsync16(to.values + 16 * lane + at, values + part * kBytes + 16 * lane + at);
    }
    constexpr int kSide = kTileTokens / 16;  // lanes of a side's scales
    if (part == 0 && lane < 2 * kSide) {
      const uint8_t* const from = (lane < kSide ? keys : values) + Tile::kCodeBytes;
      auto& sides = own_.sides[which % Shared::kSides];
      ptx::CopyAsync16((lane < kSide ? sides.keys : sides.values) + 16 * (lane % kSide),
                       from + 16 * (lane % kSide));
    }
  }
  ptx::CommitCopies();
}

// Fills of a part's shared memory what comes from its queries' coordinates [8][Dim], which the
// kernel before this one writes. means: of the basis. All threads of the part, warp h for head h,
// and of the block together; a barrier must follow.
template <int Bits, int Dim>
__device__ __forceinline__ void BeginLone(LoneShared<Bits, Dim>* shared, const float* coordinates,
                                          const float* means, int thread) {
  static_assert(kLoneWarps == kHeads && Dim / 32 <= kLoneWarps);
  constexpr int kOwn = Dim / 32;
  auto& fixed = shared->fixed;
  const int warp = thread / 32, lane = thread % 32, g = lane / 4, t = lane % 4;
  float mean[kOwn], own[kOwn], x[4][2];
#pragma unroll
  for (int i = 0; i < kOwn; ++i) mean[i] = __ldg(means + 32 * i + lane);
  if (thread < 2) {
    fixed.table[thread] = fixed.key_table[thread] = MakeLevelTable<Bits>();
    if (Bits < 4) {
      fixed.key_table[thread].words[0] ^= 0x80808080u;
      fixed.key_table[thread].words[1] ^= 0x80808080u;
    }
  }
  ptx::AwaitKernelBefore();
#pragma unroll
  for (int i = 0; i < kOwn; ++i) own[i] = __ldcg(coordinates + warp * Dim + 32 * i + lane);
  const int pair = min(warp, Dim / 32 - 1);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    x[i / 2][i % 2] = __ldcg(coordinates + g * Dim + 32 * pair + 8 * (i / 2) + 2 * t + i % 2);
  }
  float highest = 0, constant = 0;
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    highest = fmaxf(highest, fabsf(own[i]));
    constant = fmaf(own[i], mean[i], constant);
  }
  for (int i = 16; i > 0; i /= 2) {
    highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, i));
    constant += __shfl_xor_sync(~0u, constant, i);
  }
  // Maxima have a place that is free until the end.
  if (lane == 0) fixed.maxima[0][warp] = highest, fixed.head_constants[warp] = constant;
  __syncthreads();
#pragma unroll
  for (int h = 0; h < kHeads; ++h) highest = fmaxf(highest, fixed.maxima[0][h]);
  const int exponent = StillExponent<Bits>(highest);
  const float inverse = StillInverse<Bits>(exponent);
  if (thread == 0) fixed.unit_bits = static_cast<uint32_t>(exponent) << 23;
  if (warp == pair) fixed.terms[pair][lane] = StillTerms<Bits>(x, inverse);
  int total = 0;
#pragma unroll
  for (int i = 0; i < kOwn; ++i) total += __float2int_rn(own[i] * inverse);
  total = __reduce_add_sync(~0u, total);
  if (lane == 0) fixed.offsets[warp] = 128 * total;
}

}  // namespace corpusd::cuda
