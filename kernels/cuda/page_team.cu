// AttendTeamParts: pages in codes of 2 to 4 bits, of rows whose layer has no positions. Their
// queries are the same for every page, so they are brought into coordinates once; what is left of a
// page is its codes. A block takes a long stretch of one row's pages for one KV head, those whose
// keys and values are coded in one width. One warp asks for whole tiles by bulk copies, as far
// ahead as there is room, and finds what the means of their blocks add to scores. A page is the
// work of a team of warps: each scores some of the tokens (integer products with the keys' levels
// as bytes) and leaves their weights in shared memory; then each sums some dims of the values over
// all tokens. So a warp has few sums of its own, and warps are many: what one waits for others
// fill.
//
// 416 threads (352 at 64 dims), 113 KB of shared memory: two blocks a multiprocessor.
#include <cuda_runtime.h>

#include "kernels/cuda/ptx/permute.cuh"
#include "kernels/cuda/team_supply.cuh"

namespace corpusd::cuda {
namespace {

// Values are multiplied as 1152 + level. What that adds to a page's sums is taken off by a product
// with the sum of weights, which is kept as a share of 2^-kSumOctaves to fit into halves.
constexpr int kSumOctaves = 5;
constexpr uint32_t kSumShare = 0x28002800u;   // two halves of 2^-5
constexpr uint32_t kMinusBias = 0xF880F880u;  // of -1152 * 2^5
constexpr int kFirstBarrier = 1;              // of the teams

// A warp of a team. Lane 4g + t has heads 2t, 2t + 1; scores of tokens g, g + 8 of each of its
// groups; value sums of dims g, g + 8 of its two fragments, in units of levels.
template <int Bits, int Dim>
class TeamWorker {
 public:
  using Shared = TeamShared<Bits, Dim>;
  using Tile = CodedTile<Bits, Dim>;
  static constexpr int kPairs = Shared::kPairs, kTeamWarps = Shared::kTeamWarps;
  static constexpr int kOwn = Shared::kOwn;
  static constexpr int kTogether = 2;        // groups that share the queries' operands
  static constexpr bool kSigned = Bits < 4;  // the keys' bytes; else 128 + level

  __device__ __forceinline__ explicit TeamWorker(Shared* shared) : shared_(shared) { Find(); }

  __device__ __forceinline__ void Run();
  // Puts the warp's state into shared memory, over the stages.
  __device__ __forceinline__ void Store();

 private:
  using Words = uint32_t[kTogether][Tile::kWords];
  using Score = float[kOwn][4];
  // Who the thread is; opaque, so that it takes no registers from one page to the next.
  __device__ __forceinline__ void Find() {
    const uint32_t thread = ptx::Opaque(threadIdx.x);
    lane_ = thread % 32, g_ = thread % 32 / 4, t_ = thread % 4;
    team_ = thread / (32 * kTeamWarps), own_ = thread / 32 % kTeamWarps;
    // Teams begin elsewhere: pairs of 3 bits are not equally much work.
    pair_ = (own_ + team_) % kPairs;
  }
  __device__ __forceinline__ bool SyncTeam(bool any) const {
    return ptx::SyncAny<32 * kTeamWarps>(kFirstBarrier + team_, any);
  }
  __device__ __forceinline__ void ReadWords(Words& words, const uint8_t* tile, int group) const;
  __device__ __forceinline__ void Scores(Score& score, const typename Shared::Stage& stage,
                                         float2 constant) const;
  __device__ __forceinline__ void ScoresOf(float (&score)[kTogether][4], const Words& words,
                                           const uint8_t* scales, float2 constant) const;
  __device__ __forceinline__ void Hide(Score& score, int2 seen) const;
  // Scores, less the reference, become weights in shared memory. RETURNS whether one of them is
  // too high. sums: a share of the weights' sums, heads 2t and 2t + 1.
  __device__ __forceinline__ bool Weigh(const Score& score, const typename Shared::Stage& stage,
                                        typename Shared::Weights& to, float (&sums)[2]) const;
  __device__ __forceinline__ void Raise(Score& score);
  __device__ __forceinline__ void AddSums(const typename Shared::Weights& weights,
                                          const uint8_t* means);
  template <int Pair>
  __device__ __forceinline__ void AddValues(const typename Shared::Stage& stage,
                                            const typename Shared::Weights& weights);

  Shared* const shared_;
  uint32_t lane_, g_, t_, team_, own_, pair_;
  bool begun_ = false;  // a score was seen
  float reference_[2] = {}, sum_[2] = {};
  float output_[2][4] = {};
};

template <int Bits, int Dim>
__device__ __forceinline__ void TeamWorker<Bits, Dim>::ReadWords(Words& words, const uint8_t* tile,
                                                                 int group) const {
#pragma unroll
  for (int i = 0; i < kTogether; ++i) {
    ReadGroupWords<Tile>(words[i], tile + (group + i) * Tile::kGroupBytes, lane_);
  }
}

// constant: what the two heads add to all scores of the page. scales: of the first group's tokens.
template <int Bits, int Dim>
__device__ __forceinline__ void TeamWorker<Bits, Dim>::ScoresOf(float (&score)[kTogether][4],
                                                                const Words& words,
                                                                const uint8_t* scales,
                                                                float2 constant) const {
  const auto& fixed = shared_->fixed;
  const LevelTable<Bits> table = fixed.key_table[lane_ % 2];
  int high[kTogether][4] = {}, low[kTogether][4] = {};
  if constexpr (!kSigned) {
    const auto offset = *reinterpret_cast<const int2*>(&fixed.offsets[2 * t_]);
#pragma unroll
    for (int i = 0; i < kTogether; ++i) {
      low[i][0] = low[i][2] = -offset.x, low[i][1] = low[i][3] = -offset.y;
    }
  }
#pragma unroll
  for (int p = 0; p < kPairs; ++p) {
    const uint4 b = fixed.terms[p][lane_];
#pragma unroll
    for (int i = 0; i < kTogether; ++i) {
      uint32_t a[4];
      KeyBytes<Bits>(table, words[i], p, a);
      if constexpr (kSigned) {
        ptx::MmaSignedBytes(high[i], a, b.x, b.y);
        ptx::MmaSignedBytes(low[i], a, b.z, b.w);
      } else {
        ptx::MmaBytes(high[i], a, b.x, b.y);
        ptx::MmaBytes(low[i], a, b.z, b.w);
      }
    }
  }
  const uint32_t scale_base = kScaleBase + fixed.unit_bits;
#pragma unroll
  for (int i = 0; i < kTogether; ++i) {
    const uint32_t pair = *reinterpret_cast<const uint16_t*>(scales + i * kGroupTokens + 2 * g_);
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      // The byte 16 bits up, then to where a float has it.
      static_assert(kScaleShift == 18);
      const uint32_t byte = PermuteBytes(pair, 0, row == 0 ? 0x4044 : 0x4144);
      const float scale = __uint_as_float(byte * 4 + scale_base);
      const int x = 2 * row, y = 2 * row + 1;
      score[i][x] = fmaf(static_cast<float>(high[i][x] * 256 + low[i][x]), scale, constant.x);
      score[i][y] = fmaf(static_cast<float>(high[i][y] * 256 + low[i][y]), scale, constant.y);
    }
  }
}

template <int Bits, int Dim>
__device__ __forceinline__ void TeamWorker<Bits, Dim>::Scores(Score& score,
                                                              const typename Shared::Stage& stage,
                                                              float2 constant) const {
#pragma unroll
  for (int i = 0; i < kOwn; i += kTogether) {
    const int group = own_ * kOwn + i;
    Words words;
    ReadWords(words, stage.keys, group);
    float of[kTogether][4];
    ScoresOf(of, words, stage.keys + Tile::kCodeBytes + group * kGroupTokens, constant);
#pragma unroll
    for (int j = 0; j < 4 * kTogether; ++j) score[i + j / 4][j % 4] = of[j / 4][j % 4];
  }
}

// Slots [x, y) of the page are seen.
template <int Bits, int Dim>
__device__ __forceinline__ void TeamWorker<Bits, Dim>::Hide(Score& score, int2 seen) const {
  if (seen.x <= 0 && seen.y >= kTileTokens) return;
#pragma unroll
  for (int i = 0; i < 4 * kOwn; ++i) {
    const int slot = (own_ * kOwn + i / 4) * kGroupTokens + g_ + i % 4 / 2 * 8;
    if (slot < seen.x || slot >= seen.y) score[i / 4][i % 4] = kNoScore;
  }
}

template <int Bits, int Dim>
__device__ __forceinline__ bool TeamWorker<Bits, Dim>::Weigh(const Score& score,
                                                             const typename Shared::Stage& stage,
                                                             typename Shared::Weights& to,
                                                             float (&sums)[2]) const {
  const uint32_t shares[4] = {kSumShare, kSumShare, kSumShare, kSumShare};
  const uint8_t* const scales =
      stage.values + Tile::kCodeBytes + own_ * (kOwn * kGroupTokens) + 4 * t_;
  __half2 highest = __floats2half2_rn(0, 0);
  float mass[4] = {}, scaled[4] = {};
#pragma unroll
  for (int i = 0; i < kOwn; i += 2) {
    uint32_t b[2][2];
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      uint32_t weight[2];  // heads down: of tokens 0-7 and 8-15
#pragma unroll
      for (int row = 0; row < 2; ++row) {
        const float x = score[i + j][2 * row], y = score[i + j][2 * row + 1];
        weight[row] = PackHalves(ptx::Exp2(x), ptx::Exp2(y));
        highest = __hmax2(highest, HalfPair(weight[row]));
        weight[row] = ptx::TransposeHalves(weight[row]);
      }
      ptx::MmaM16N8K16(mass, shares, weight[0], weight[1]);
      // Of tokens 2t, 2t + 8, 2t + 1, 2t + 9: the order of ValueHalves.
      const auto scale = *reinterpret_cast<const uint32_t*>(scales + (i + j) * kGroupTokens);
      b[j][0] =
          MultiplyHalves(PermuteBytes(weight[0], weight[1], 0x5410), ScaleHalves(scale, 0x4140));
      b[j][1] =
          MultiplyHalves(PermuteBytes(weight[0], weight[1], 0x7632), ScaleHalves(scale, 0x4342));
      ptx::MmaM16N8K16(scaled, shares, b[j][0], b[j][1]);
    }
    to.operands[(own_ * kOwn + i) / 2][lane_] = make_uint4(b[0][0], b[0][1], b[1][0], b[1][1]);
  }
  sums[0] = mass[0], sums[1] = mass[1];
  if (g_ == 0) to.sums[t_][own_] = make_float4(mass[0], mass[1], scaled[0], scaled[1]);
  // Bits of halves that are not negative ascend with them.
  constexpr uint32_t kTop = 0x6800u;  // 2^11
  static_assert(kCeiling == 11.0f);
  const uint32_t bits = HalfBits(highest);
  return bits >= kTop << 16 || (bits & 0xFFFF) >= kTop;
}

// Moves the team's reference to where scores call for it, and with it what was summed so far.
template <int Bits, int Dim>
__device__ __forceinline__ void TeamWorker<Bits, Dim>::Raise(Score& score) {
  auto& raised = shared_->fixed.raised[team_];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float highest = kNoScore;
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      highest = fmaxf(highest, fmaxf(score[i][h], score[i][2 + h]));
    }
    for (int i = 4; i < 32; i *= 2) highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, i));
    if (g_ == 0) raised[own_][2 * t_ + h] = highest;
  }
  SyncTeam(false);
  bool seen = false;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float highest = raised[0][2 * t_ + h];
#pragma unroll
    for (int w = 1; w < kTeamWarps; ++w) highest = fmaxf(highest, raised[w][2 * t_ + h]);
    seen = highest > kNoScore / 2;
    const float move = begun_ ? fmaxf(highest - kLift, 0.0f) : seen ? highest - kLift : 0.0f;
    const float factor = begun_ ? ptx::Exp2(-move) : 1.0f;
    reference_[h] += move;
    sum_[h] *= factor;
#pragma unroll
    for (int f = 0; f < 2; ++f) output_[f][h] *= factor, output_[f][2 + h] *= factor;
#pragma unroll
    for (int i = 0; i < kOwn; ++i) score[i][h] -= move, score[i][2 + h] -= move;
  }
  begun_ = begun_ || __any_sync(~0u, seen);
}

// The means of the page's values times its mass, and what the values' bias will add to its sums,
// taken off. Columns of A are the warps' masses, then their sums of scaled weights; and all these
// again for what a half has left of a sum.
template <int Bits, int Dim>
__device__ __forceinline__ void TeamWorker<Bits, Dim>::AddSums(
    const typename Shared::Weights& weights, const uint8_t* means) {
  const bool is_mass = 2 * t_ < kTeamWarps;
  float x[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t column = 2 * t_ + i;
    const auto* of = reinterpret_cast<const float*>(&weights.sums[g_ / 2][column % kTeamWarps]);
    x[i] = column < 2 * kTeamWarps ? of[(is_mass ? 0 : 2) + g_ % 2] : 0.0f;
    // Means are in eighths, sums of values in units of levels.
    if (is_mass) x[i] *= kMeanStep * LevelUnit(Bits);
  }
  const uint32_t b0 = PackHalves(x[0], x[1]);
  const float2 kept = __half22float2(HalfPair(b0));
  const uint32_t b1 = PackHalves(x[0] - kept.x, x[1] - kept.y);
  const __half2 octaves = __floats2half2_rn(1 << kSumOctaves, 1 << kSumOctaves);
#pragma unroll
  for (int f = 0; f < 2; ++f) {
    uint32_t a[4];
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      const int mean = reinterpret_cast<const int8_t*>(means)[32 * pair_ + 16 * f + 8 * row + g_];
      // Two halves of 1152 + mean, then of the mean times 2^5.
      const uint32_t biased = static_cast<uint32_t>(mean) * 0x10001u + kLevelBias;
      const uint32_t plain = HalfBits(__hfma2(HalfPair(biased), octaves, HalfPair(kMinusBias)));
      a[row] = a[2 + row] = is_mass ? plain : kMinusBias;
    }
    ptx::MmaM16N8K16(output_[f], a, b0, b1);
  }
}

// Fragments 2 pair and 2 pair + 1 of all groups. Pair: the same, counted from the first word read.
template <int Bits, int Dim>
template <int Pair>
__device__ __forceinline__ void TeamWorker<Bits, Dim>::AddValues(
    const typename Shared::Stage& stage, const typename Shared::Weights& weights) {
  constexpr int kWords = Bits == 3 ? 3 : Bits / 2;  // of a pair
  const LevelTable<Bits> table = shared_->fixed.table[lane_ % 2];
  const int first = Bits == 3 ? pair_ / 2 * 3 : pair_ * kWords;
  const uint8_t* from[Bits == 3 ? 3 : 1];
#pragma unroll
  for (int w = 0; w < (Bits == 3 ? 3 : 1); ++w) {
    from[w] = stage.values + Tile::WordOffset(first + w, lane_);
  }
#pragma unroll
  for (int i = 0; i < kGroups; i += 2) {
    const uint4 b = weights.operands[i / 2][lane_];
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int at = (i + j) * Tile::kGroupBytes;
      uint32_t words[kWords];
      if constexpr (Bits == 3) {
#pragma unroll
        for (int w = 0; w < 3; ++w) words[w] = *reinterpret_cast<const uint32_t*>(from[w] + at);
      } else if constexpr (Bits == 2) {
        words[0] = *reinterpret_cast<const uint32_t*>(from[0] + at);
      } else {
        const auto v = *reinterpret_cast<const uint2*>(from[0] + at);
        words[0] = v.x, words[1] = v.y;
      }
      const uint32_t b0 = j == 0 ? b.x : b.z, b1 = j == 0 ? b.y : b.w;
      uint32_t a[2][4];
      ValueHalves<Bits>(table, words, Pair, a);
      ptx::MmaM16N8K16(output_[0], a[0], b0, b1);
      ptx::MmaM16N8K16(output_[1], a[1], b0, b1);
    }
  }
}

template <int Bits, int Dim>
__device__ __forceinline__ void TeamWorker<Bits, Dim>::Run() {
  auto& fixed = shared_->fixed;
  int place = team_, arrival = team_, parity = 0, turn = 0;
#pragma unroll 1
  for (uint32_t which = team_; which < fixed.part.end - fixed.part.first; which += Shared::kTeams) {
    Find();
    auto& stage = shared_->stages[place];
    ptx::WaitPhase(&fixed.full[arrival], parity);
    const uint32_t slot = which % Shared::kSlots;
    const int2 seen = fixed.seen[slot];
    if (seen.x < seen.y) {
      auto& weights = fixed.weights[team_][turn];
      turn ^= 1;
      Score score;
      {
        const auto constant = *reinterpret_cast<const float2*>(&fixed.constants[slot][2 * t_]);
        Scores(score, stage, make_float2(constant.x - reference_[0], constant.y - reference_[1]));
      }
      Hide(score, seen);
      float sums[2];
#pragma unroll 1
      for (bool raised = false;; raised = true) {
        const bool above = Weigh(score, stage, weights, sums);
        if (!SyncTeam(!raised && (above || !begun_))) break;
        Raise(score);
      }
      sum_[0] += sums[0], sum_[1] += sums[1];
      AddSums(weights, stage.values + Shared::kKeyBytes);
      if (Bits == 3 && pair_ % 2 == 1) {
        AddValues<1>(stage, weights);
      } else {
        AddValues<0>(stage, weights);
      }
    }
    ptx::ArriveWarp(&fixed.empty[place]);
    place += Shared::kTeams;
    if (place >= Shared::kStages) place -= Shared::kStages;
    arrival += Shared::kTeams;
    if (arrival >= Shared::kArrivals) arrival -= Shared::kArrivals, parity ^= 1;
  }
}

template <int Bits, int Dim>
__device__ __forceinline__ void TeamWorker<Bits, Dim>::Store() {
  auto& fixed = shared_->fixed;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    if (g_ == 0) {
      fixed.warp_sums[team_][own_][2 * t_ + h] = sum_[h] * (1 << kSumOctaves);
      if (own_ == 0) fixed.maxima[team_][2 * t_ + h] = begun_ ? reference_[h] : kNoScore;
    }
#pragma unroll
    for (int f = 0; f < 2; ++f) {
      float* to = &shared_->outputs[team_][2 * t_ + h][32 * pair_ + 16 * f + g_];
      to[0] = output_[f][h] * (1.0f / LevelUnit(Bits));
      to[8] = output_[f][2 + h] * (1.0f / LevelUnit(Bits));
    }
  }
}

// What StorePart reads.
template <int Bits, int Dim>
struct TeamStates {
  static constexpr int kTeams = TeamShared<Bits, Dim>::kTeams;
  const float (&maxima)[kTeams][kHeads], (&sums)[kTeams][kHeads];
  const float (&outputs)[kTeams][kHeads][Dim];
};

// Block (part, KV head and eight of its query heads, row).
template <int Bits, int Dim>
__global__ void __launch_bounds__(TeamThreads(Dim), 2)
    TeamKernel(const __grid_constant__ PageAttention call) {
  extern __shared__ __align__(128) uint8_t memory[];
  using Shared = TeamShared<Bits, Dim>;
  auto& shared = *reinterpret_cast<Shared*>(memory);
  auto& fixed = shared.fixed;
  {
    const LongPart part(call);
    if (!part.any()) return;
    if (threadIdx.x == 0) fixed.part = part;  // for later: registers are few
    if (threadIdx.x < Shared::kArrivals)
      ptx::InitBarrier(&fixed.full[threadIdx.x], ptx::kWarpArrivals);
    if (threadIdx.x < Shared::kStages) {
      ptx::InitBarrier(&fixed.empty[threadIdx.x], Shared::kTeamWarps * ptx::kWarpArrivals);
    }
    ptx::PublishBarriers();
    BeginStill<Bits, Dim, TeamThreads(Dim)>(
        &shared, part.Queries(call), part.heads, call.scale * kLog2E,
        call.basis.arrays + 2 * part.kv_head * BasisSideFloats(Dim));
  }
  if (threadIdx.x / 32 == TeamWorkers(Dim)) {
    TeamSupply<Bits, Dim>(call, &shared).Run();
    __syncthreads();  // the stages are read
  } else {
    TeamWorker<Bits, Dim> worker(&shared);
    worker.Run();
    __syncthreads();
    worker.Store();
  }
  __syncthreads();
  constexpr int kTeams = Shared::kTeams;
  if (threadIdx.x < kTeams * kHeads) {
    const int team = threadIdx.x / kHeads, head = threadIdx.x % kHeads;
    float sum = 0;
#pragma unroll
    for (int w = 0; w < Shared::kTeamWarps; ++w) sum += fixed.warp_sums[team][w][head];
    fixed.sums[team][head] = sum;
  }
  __syncthreads();
  const TeamStates<Bits, Dim> states{fixed.maxima, fixed.sums, shared.outputs};
  for (int h = 0; h < fixed.part.heads; ++h) {
    StorePart<Dim, kTeams>(fixed.part.State(call, PageKindOfBits(Bits), h), states, h);
  }
}

template <int Bits, int Dim>
int LaunchTeam(const PageAttention& call, CUstream_st* stream) {
  if ((call.kinds >> PageKindOfBits(Bits) & 1) == 0) return cudaSuccess;
  constexpr int kBytes = sizeof(TeamShared<Bits, Dim>);
  static_assert(kBytes <= kStillSharedBytes);
  if (const cudaError_t error = cudaFuncSetAttribute(
          TeamKernel<Bits, Dim>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes)) {
    return error;
  }
  const dim3 grid(LongPartsMax(call.kv_blocks()), call.kv_blocks(), call.q.rows);
  TeamKernel<Bits, Dim><<<grid, TeamThreads(Dim), kBytes, stream>>>(call);
  return cudaGetLastError();
}

template <int Dim>
int LaunchWidths(const PageAttention& call, CUstream_st* stream) {
  if (const int error = LaunchTeam<2, Dim>(call, stream)) return error;
  if (const int error = LaunchTeam<3, Dim>(call, stream)) return error;
  return LaunchTeam<4, Dim>(call, stream);
}

}  // namespace

int AttendTeamParts(const PageAttention& call, CUstream_st* stream) {
  if (call.head_dim == 64) return LaunchWidths<64>(call, stream);
  if (call.head_dim == 128) return LaunchWidths<128>(call, stream);
  return cudaErrorInvalidValue;
}

}  // namespace corpusd::cuda
