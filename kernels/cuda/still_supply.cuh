// kernels/cuda/still_supply.cuh -- what a block of page_still.cu has in shared memory, how it
// begins (its queries as integers of 16 bits) and the warp that describes pages, works out what
// their blocks' means add to scores, and asks for their codes.
#pragma once

#include "kernels/cuda/level_bytes.h"
#include "kernels/cuda/long_part.cuh"
#include "kernels/cuda/page_part.cuh"
#include "kernels/cuda/ptx/async_copy.cuh"

namespace corpusd::cuda {

constexpr int kStillWarps = 8, kStillWorkers = 32 * kStillWarps;  // that multiply
constexpr int kStillThreads = kStillWorkers + 32;
// Of shared memory, when two blocks share a multiprocessor of 228 KB.
constexpr int kStillSharedBytes = 113 * 1024;
constexpr int kStillStagesMax = 8;
// The largest coordinate of a block's queries is this integer at most: 256 * high + low, signed
// bytes.
constexpr float kStillLargestTerm = 32000.0f;

// Groups of 16 tokens that a warp takes of a page: as many as its registers hold. So many teams of
// warps take turns with the pages.
constexpr int StillGroups(int bits) { return bits == 8 ? 1 : 2; }

struct alignas(16) StillPage {
  int stage, parity;  // where its codes come; stage -1: nothing to see
  int hidden, visible;
};

template <int Bits, int Dim>
struct StillShared {
  using Tile = CodedTile<Bits, Dim>;
  static constexpr int kPairs = Dim / 32;  // of fragments: the depth of an integer product
  static constexpr int kTileBytes = Tile::kCodeBytes + kTileTokens;  // codes and scales
  struct Stage {
    alignas(16) uint8_t keys[kTileBytes];
    alignas(16) uint8_t values[kTileBytes];
  };
  struct Fixed {
    uint4 terms[kPairs][32];      // B operands of the keys: high bytes, then low
    uint2 queries[Dim / 16][32];  // halves: B operands of the means of blocks
    uint32_t key_means[kChunk][Dim / 2 + 4];     // halves, rows 16 bytes apart in the banks
    uint32_t value_means[2][kChunk / 2][Dim];    // halves of two pages
    float constants[2][kChunk][kHeads];          // what a head adds to all scores of a page
    StillPage pages[2][kChunk];
    float head_constants[kHeads];  // the part of all pages
    int offsets[kHeads];           // what the bytes' 128 adds to the products
    uint32_t unit_bits;            // the terms' unit, a power of two: added to a float's bits
    float maxima[kStillWarps][kHeads], sums[kStillWarps][kHeads];
    // Twice, for even and odd lanes: what differs between lanes stays out of the uniform registers,
    // from which every look-up would copy it.
    LevelTable<Bits> table[2];
    LongPart part;
    uint64_t full[kStillStagesMax], empty[kStillStagesMax];
    uint64_t ready[2], done[2];  // descriptions, means and constants of a chunk
  };
  static constexpr int kRoom = (kStillSharedBytes - int{sizeof(Fixed)}) / int{sizeof(Stage)};
  static constexpr int kStages = kRoom < kStillStagesMax ? kRoom : kStillStagesMax;
  static_assert(kStages >= 2);
  struct Begin {
    float rows[Dim][kHeads];      // scaled queries
    float products[kStillWorkers / Dim][kHeads][Dim];  // of teams; the first becomes the sum
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
  constexpr int kTeams = kStillWorkers / Dim, kOwn = Dim / kTeams;
  for (int i = thread; i < kHeads * Dim; i += kStillThreads) {
    rows[i % Dim][i / Dim] = i < heads * Dim ? q[i] * scale : 0.0f;
  }
  if (thread < 2) fixed.table[thread] = MakeLevelTable<Bits>();
  __syncthreads();
  if (thread < kStillWorkers) {
    const int j = thread % Dim, team = thread / Dim;
    const float* from = basis + BasisPartOffset(BasisPart::kQuery, Dim) + team * kOwn * Dim + j;
    float sums[kHeads] = {};
#pragma unroll 8
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
  __syncthreads();
}

// The warp that supplies the others, a chunk of eight pages at a time.
template <int Bits, int Dim>
class StillSupplier {
 public:
  using Shared = StillShared<Bits, Dim>;
  using Tile = CodedTile<Bits, Dim>;
  __device__ __forceinline__ StillSupplier(const PageAttention& call, Shared* shared)
      : call_(call), shared_(shared), lane_(threadIdx.x % 32) {}

  // The chunk behind the last is described too: it has nothing to see.
  __device__ __forceinline__ void Run() {
    const LongPart part = shared_->fixed.part;
    Fetch(part, part.first);
    Publish();
    for (uint32_t at = part.first; at < part.end; at += kChunk) {
      const uint8_t *keys = keys_, *values = values_;
      const StillPage page = page_;
      Fetch(part, at + kChunk);
      Ask(keys, values, page);
      Publish();
    }
  }

 private:
  static constexpr int kMeans = Tile::kCodeBytes + kTileTokens;

  // Describes eight pages, one a lane, and asks for the means of their blocks.
  __device__ __forceinline__ void Fetch(const LongPart& part, uint32_t first) {
    page_ = {-1, 0, 0, 0};
    keys_ = values_ = nullptr;
    const uint32_t at = first + lane_;
    if (lane_ < kChunk && at < part.end) {
      const DevicePage page = call_.pages[part.row.first_page + at];
      const int visible = VisibleEnd(page, part.row.position);
      if (PageKindOf(page.key_codec, page.value_codec) == PageKindOfBits(Bits) &&
          page.hidden < visible) {
        page_.hidden = page.hidden;
        page_.visible = visible;
        keys_ = KeyTile(page, call_.layer, part.kv_head);
        values_ = ValueTile(page, call_.layer, part.kv_head, call_.kv_heads);
      }
    }
    const uint32_t present = __ballot_sync(~0u, keys_ != nullptr);
    if (keys_ != nullptr) {
      const uint32_t which = asked_ + __popc(present & ((1u << lane_) - 1));
      page_.stage = static_cast<int>(which % Shared::kStages);
      page_.parity = static_cast<int>(which / Shared::kStages % 2);
    }
    asked_ += __popc(present);
#pragma unroll
    for (int p = 0; p < kChunk; ++p) {
      key_means_[p] = value_means_[p] = 0;
      const auto* keys = Broadcast(keys_, p);
      const auto* values = Broadcast(values_, p);
      if (keys != nullptr && lane_ < Dim / 4) {
        key_means_[p] = __ldg(reinterpret_cast<const uint32_t*>(keys + kMeans) + lane_);
        value_means_[p] = __ldg(reinterpret_cast<const uint32_t*>(values + kMeans) + lane_);
      }
    }
  }

  // Asks for the codes of a chunk: each lane says where its page's lie.
  __device__ __forceinline__ void Ask(const uint8_t* keys, const uint8_t* values,
                                      const StillPage& page) {
#pragma unroll 1
    for (int p = 0; p < kChunk; ++p) {
      const int stage = __shfl_sync(~0u, page.stage, p);
      if (stage < 0) continue;
      if (lane_ == p) {
        auto& fixed = shared_->fixed;
        ptx::WaitPhase(&fixed.empty[stage], page.parity ^ 1);
        ptx::ArriveExpecting(&fixed.full[stage], 2 * Shared::kTileBytes);
        auto& to = shared_->stages[stage];
        ptx::CopyToShared(to.keys, keys, Shared::kTileBytes, &fixed.full[stage]);
        ptx::CopyToShared(to.values, values, Shared::kTileBytes, &fixed.full[stage]);
      }
      __syncwarp();
    }
  }

  // The fetched chunk's descriptions, constants and value means.
  __device__ __forceinline__ void Publish() {
    auto& fixed = shared_->fixed;
    const int turn = turn_ % 2;
    ptx::WaitPhase(&fixed.done[turn], (turn_ / 2 % 2) ^ 1);
    if (lane_ < kChunk) fixed.pages[turn][lane_] = page_;
    constexpr float kStep = kMeanStep * LevelUnit(Bits);
    if (lane_ < Dim / 4) {
#pragma unroll
      for (int p = 0; p < kChunk; ++p) {
        const uint32_t x = key_means_[p];
        *reinterpret_cast<uint2*>(&fixed.key_means[p][2 * lane_]) =
            make_uint2(PackHalves(Byte<0>(x) * kMeanStep, Byte<1>(x) * kMeanStep),
                       PackHalves(Byte<2>(x) * kMeanStep, Byte<3>(x) * kMeanStep));
      }
#pragma unroll
      for (int p = 0; p < kChunk; p += 2) {
        const uint32_t x = value_means_[p], y = value_means_[p + 1];
        *reinterpret_cast<uint4*>(&fixed.value_means[turn][p / 2][4 * lane_]) =
            make_uint4(PackHalves(Byte<0>(x) * kStep, Byte<0>(y) * kStep),
                       PackHalves(Byte<1>(x) * kStep, Byte<1>(y) * kStep),
                       PackHalves(Byte<2>(x) * kStep, Byte<2>(y) * kStep),
                       PackHalves(Byte<3>(x) * kStep, Byte<3>(y) * kStep));
      }
    }
    __syncwarp();
    const int g = lane_ / 4, t = lane_ % 4;
    float c[4] = {};
#pragma unroll
    for (int f = 0; f < Dim / 16; ++f) {
      const uint32_t* means = &fixed.key_means[g][8 * f + t];
      const uint32_t a[4] = {means[0], 0, means[4], 0};
      const uint2 b = fixed.queries[f][lane_];
      ptx::MmaM16N8K16(c, a, b.x, b.y);
    }
    const auto constant = *reinterpret_cast<const float2*>(&fixed.head_constants[2 * t]);
    *reinterpret_cast<float2*>(&fixed.constants[turn][g][2 * t]) =
        make_float2(c[0] + constant.x, c[1] + constant.y);
    __syncwarp();
    if (lane_ == 0) ptx::Arrive(&fixed.ready[turn]);
    ++turn_;
  }

  template <int I>
  static __device__ __forceinline__ float Byte(uint32_t bytes) {
    return static_cast<float>(static_cast<int8_t>(bytes >> 8 * I & 0xFF));
  }
  static __device__ __forceinline__ const uint8_t* Broadcast(const uint8_t* pointer, int from) {
    return reinterpret_cast<const uint8_t*>(
        __shfl_sync(~0u, reinterpret_cast<unsigned long long>(pointer), from));
  }

  const PageAttention& call_;
  Shared* const shared_;
  const int lane_;
  uint32_t asked_ = 0, turn_ = 0;
  // Of the chunk that is fetched: of this lane's page; of all pages, four dims of this lane.
  StillPage page_;
  const uint8_t *keys_ = nullptr, *values_ = nullptr;
  uint32_t key_means_[kChunk], value_means_[kChunk];
};

}  // namespace corpusd::cuda
