// AttendStillParts: the coded pages of rows whose layer has no positions. Their queries are the
// same for every page, so they are brought into coordinates once; what is left of a page is its
// codes. A block takes a long stretch of one row's pages for one KV head, those whose keys and
// values are coded in one width. Whole tiles come by bulk copies, up to seven pages ahead; eight
// warps multiply, each one or two groups of 16 tokens at a time, as page_coded.cu does: scores are
// integer products with the keys' levels as bytes, weights are halves, and so become the values'
// levels. Nothing but two counters of each stage holds the warps together.
//
// 256 threads, at most 128 registers, 113 KB of shared memory: two blocks a multiprocessor.
#include <cuda_runtime.h>

#include "kernels/cuda/still_supply.cuh"

namespace corpusd::cuda {
namespace {

// A warp's softmax over its groups. Lane 4g + t has heads 2t, 2t + 1; scores of tokens g, g + 8;
// value sums of dims g, g + 8 of each fragment, in units of levels.
template <int Bits, int Dim>
class StillWorker {
 public:
  using Shared = StillShared<Bits, Dim>;
  using Tile = CodedTile<Bits, Dim>;
  static constexpr int kPairs = Dim / 32, kCount = StillGroups(Bits), kTeams = kCount;
  static constexpr bool kSigned = Bits < 4;  // the keys' bytes; else 128 + level

  __device__ __forceinline__ StillWorker(const PageAttention& call, Shared* shared)
      : supply_(call, shared),
        shared_(shared),
        lane_(threadIdx.x % 32),
        g_(lane_ / 4),
        t_(lane_ % 4),
        warp_(__shfl_sync(~0u, static_cast<int>(threadIdx.x / 32), 0)) {}

  __device__ __forceinline__ void Run();
  // Puts the warp's state into shared memory, over the stages.
  __device__ __forceinline__ void Merge();

 private:
  using Words = uint32_t[kCount][Tile::kWords];
  __device__ __forceinline__ int team() const { return warp_ * kTeams / kStillWarps; }
  // Of a tile, in which the warp's groups begin.
  __device__ __forceinline__ int first_group() const {
    return warp_ % (kStillWarps / kTeams) * kCount;
  }
  // What the block's begin left for all pages.
  __device__ __forceinline__ void ReadFixed();
  __device__ __forceinline__ void ReadWords(Words& words, const uint8_t* tile) const;
  __device__ __forceinline__ void Scores(float (&score)[kCount][4], const Words& words,
                                         const uint8_t* tile, float2 constant) const;
  __device__ __forceinline__ void Weigh(float (&score)[kCount][4], int hidden, int visible);
  __device__ __forceinline__ void Raise(float (&score)[kCount][4]);
  __device__ __forceinline__ void Pack(const float (&score)[kCount][4]);
  // scales: of tokens 2t, 2t + 8, 2t + 1, 2t + 9.
  __device__ __forceinline__ void AddValues(const Words& words, const uint32_t (&scales)[kCount],
                                            int at);
  __device__ __forceinline__ void AddMeans(const uint32_t (&means)[kChunk / 2][Dim]);

  StillSupply<Bits, Dim> supply_;
  Shared* const shared_;
  const int lane_, g_, t_, warp_;
  LevelTable<Bits> table_, key_table_;
  int offsets_[2];
  uint32_t scale_base_;
  bool begun_ = false;  // a score was seen
  float reference_[2] = {}, sum_[2] = {};
  float output_[2 * kPairs][4] = {};
  float extra_[4] = {};  // 0, 1: the mass of page g of the chunk; 2, 3: what outputs have too much
  uint32_t weight_[kCount][2];  // halves with heads down: of tokens 0-7 and 8-15
};

template <int Bits, int Dim>
__device__ __forceinline__ void StillWorker<Bits, Dim>::ReadWords(Words& words,
                                                                  const uint8_t* tile) const {
  tile += first_group() * Tile::kGroupBytes;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    ReadGroupWords<Tile>(words[i], tile + i * Tile::kGroupBytes, lane_);
  }
}

// constant: what the two heads add to all scores of the page.
template <int Bits, int Dim>
__device__ __forceinline__ void StillWorker<Bits, Dim>::Scores(float (&score)[kCount][4],
                                                               const Words& words,
                                                               const uint8_t* tile,
                                                               float2 constant) const {
  int high[kCount][4] = {}, low[kCount][4];
#pragma unroll
  for (int i = 0; i < 4 * kCount; ++i) low[i / 4][i % 4] = kSigned ? 0 : offsets_[i % 2];
#pragma unroll
  for (int p = 0; p < kPairs; ++p) {
    const uint4 b = shared_->fixed.terms[p][lane_];
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      uint32_t a[4];
      KeyBytes<Bits>(key_table_, words[i], p, a);
      if constexpr (kSigned) {
        ptx::MmaSignedBytes(high[i], a, b.x, b.y);
        ptx::MmaSignedBytes(low[i], a, b.z, b.w);
      } else {
        ptx::MmaBytes(high[i], a, b.x, b.y);
        ptx::MmaBytes(low[i], a, b.z, b.w);
      }
    }
  }
  const uint8_t* scales = tile + Tile::kCodeBytes + first_group() * kGroupTokens + 2 * g_;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const uint32_t pair = *reinterpret_cast<const uint16_t*>(scales + i * kGroupTokens);
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      // The byte 16 bits up, then to where a float has it.
      static_assert(kScaleShift == 18);
      const uint32_t byte = PermuteBytes(pair, 0, row == 0 ? 0x4044 : 0x4144);
      const float scale = __uint_as_float(byte * 4 + scale_base_);
      const int x = 2 * row, y = 2 * row + 1;
      score[i][x] = fmaf(static_cast<float>(high[i][x] * 256 + low[i][x]), scale, constant.x);
      score[i][y] = fmaf(static_cast<float>(high[i][y] * 256 + low[i][y]), scale, constant.y);
    }
  }
}

// Moves the reference to where scores call for it, and with it what was summed so far.
template <int Bits, int Dim>
__device__ __forceinline__ void StillWorker<Bits, Dim>::Raise(float (&score)[kCount][4]) {
  float move[2];
  bool seen = false;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float highest = kNoScore;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      highest = fmaxf(highest, fmaxf(score[i][h], score[i][2 + h]));
    }
    for (int i = 4; i < 32; i *= 2) highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, i));
    seen = highest > kNoScore / 2;
    move[h] = begun_ ? fmaxf(highest - kLift, 0.0f) : seen ? highest - kLift : 0.0f;
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const float factor = begun_ ? ptx::Exp2(-move[h]) : 1.0f;
    reference_[h] += move[h];
    sum_[h] *= factor;
    extra_[h] *= factor;
    extra_[2 + h] *= factor;
#pragma unroll
    for (int f = 0; f < 2 * kPairs; ++f) output_[f][h] *= factor, output_[f][2 + h] *= factor;
#pragma unroll
    for (int i = 0; i < kCount; ++i) score[i][h] -= move[h], score[i][2 + h] -= move[h];
  }
  begun_ = begun_ || __any_sync(~0u, seen);
}

template <int Bits, int Dim>
__device__ __forceinline__ void StillWorker<Bits, Dim>::Pack(const float (&score)[kCount][4]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      weight_[i][row] = PackHalves(ptx::Exp2(score[i][2 * row]), ptx::Exp2(score[i][2 * row + 1]));
    }
  }
}

// Scores, less the reference, become weights; slots [hidden, visible) are seen.
template <int Bits, int Dim>
__device__ __forceinline__ void StillWorker<Bits, Dim>::Weigh(float (&score)[kCount][4], int hidden,
                                                              int visible) {
  if (hidden > 0 || visible < kTileTokens) {
#pragma unroll
    for (int i = 0; i < 4 * kCount; ++i) {
      const int slot = (first_group() + i / 4) * kGroupTokens + g_ + i % 4 / 2 * 8;
      if (slot < hidden || slot >= visible) score[i / 4][i % 4] = kNoScore;
    }
  }
  Pack(score);
  __half2 highest = __hmax2(HalfPair(weight_[0][0]), HalfPair(weight_[0][1]));
#pragma unroll
  for (int i = 1; i < kCount; ++i) {
    highest = __hmax2(highest, __hmax2(HalfPair(weight_[i][0]), HalfPair(weight_[i][1])));
  }
  // Bits of halves that are not negative ascend with them.
  constexpr uint32_t kTop = 0x6800u;  // 2^11
  static_assert(kCeiling == 11.0f);
  const uint32_t bits = HalfBits(highest);
  const bool above = bits >= kTop << 16 || (bits & 0xFFFF) >= kTop;
  if (__any_sync(~0u, above || !begun_)) {
    Raise(score);
    Pack(score);
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
#pragma unroll
    for (int row = 0; row < 2; ++row) weight_[i][row] = ptx::TransposeHalves(weight_[i][row]);
  }
}

// Levels are multiplied as 1152 + level, as they come out of a look-up; one product more counts
// what that adds. at: of the page in its chunk.
template <int Bits, int Dim>
__device__ __forceinline__ void StillWorker<Bits, Dim>::AddValues(const Words& words,
                                                                  const uint32_t (&scales)[kCount],
                                                                  int at) {
  constexpr uint32_t kMinusBias = 0xE480E480u;  // two halves of -1152
  const uint32_t ones = g_ == at ? 0x3C003C00u : 0u;
  const uint32_t rows[4] = {ones, 0, ones, 0};
  const uint32_t biases[4] = {0, kMinusBias, 0, kMinusBias};
  uint32_t b[kCount][2];
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    ptx::MmaM16N8K16(extra_, rows, weight_[i][0], weight_[i][1]);
    // Tokens in the order of ValueHalves: 2t, 2t + 8, then 2t + 1, 2t + 9.
    b[i][0] = MultiplyHalves(PermuteBytes(weight_[i][0], weight_[i][1], 0x5410),
                             ScaleHalves(scales[i], 0x4140));
    b[i][1] = MultiplyHalves(PermuteBytes(weight_[i][0], weight_[i][1], 0x7632),
                             ScaleHalves(scales[i], 0x4342));
    ptx::MmaM16N8K16(extra_, biases, b[i][0], b[i][1]);
  }
#pragma unroll
  for (int p = 0; p < kPairs; ++p) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      uint32_t a[2][4];
      ValueHalves<Bits>(table_, words[i], p, a);
      ptx::MmaM16N8K16(output_[2 * p], a[0], b[i][0], b[i][1]);
      ptx::MmaM16N8K16(output_[2 * p + 1], a[1], b[i][0], b[i][1]);
    }
  }
}

// The masses of the chunk's pages times the means of their blocks: pages are the columns of A.
template <int Bits, int Dim>
__device__ __forceinline__ void StillWorker<Bits, Dim>::AddMeans(
    const uint32_t (&means)[kChunk / 2][Dim]) {
  const uint32_t b = ptx::TransposeHalves(PackHalves(extra_[0], extra_[1]));
#pragma unroll
  for (int f = 0; f < 2 * kPairs; ++f) {
    const uint32_t* from = &means[t_][16 * f + g_];
    const uint32_t a[4] = {from[0], from[8], 0, 0};
    ptx::MmaM16N8K16(output_[f], a, b, 0);
    output_[f][0] += extra_[2], output_[f][2] += extra_[2];
    output_[f][1] += extra_[3], output_[f][3] += extra_[3];
  }
  sum_[0] += extra_[0], sum_[1] += extra_[1];
  extra_[0] = extra_[1] = extra_[2] = extra_[3] = 0;
}

template <int Bits, int Dim>
__device__ __forceinline__ void StillWorker<Bits, Dim>::ReadFixed() {
  const auto& fixed = shared_->fixed;
  table_ = fixed.table[lane_ % 2];
  key_table_ = fixed.key_table[lane_ % 2];
  const auto offset = *reinterpret_cast<const int2*>(&fixed.offsets[2 * t_]);
  offsets_[0] = -offset.x, offsets_[1] = -offset.y;
  scale_base_ = kScaleBase + fixed.unit_bits;
}

// The keys of a page and the values of the one before are one stretch of code without a branch: so
// their instructions fill each other's gaps. The page behind the last has nothing to see.
template <int Bits, int Dim>
__device__ __forceinline__ void StillWorker<Bits, Dim>::Run() {
  auto& fixed = shared_->fixed;
  ReadFixed();
  const uint32_t pages = (fixed.part.end - fixed.part.first + kChunk - 1) / kChunk * kChunk;
  constexpr uint32_t kAhead = Shared::kAhead, kLead = Shared::kLead, kTurns = Shared::kTurns;
#pragma unroll 1
  for (uint32_t chunk = 0; chunk < kLead; ++chunk) {
    supply_.Describe(chunk * kChunk + warp_);
    supply_.Publish(chunk * kChunk + warp_, lane_);
  }
  if (static_cast<uint32_t>(warp_) < kAhead && lane_ == 0) supply_.Ask(warp_);
  Words words, keys;
  float score[kCount][4];
  uint32_t scales[kCount];  // of the values
#pragma unroll
  for (int i = 0; i < kCount; ++i) {  // the first round has no values yet: weights of zero
    scales[i] = weight_[i][0] = weight_[i][1] = 0;
#pragma unroll
    for (int w = 0; w < Tile::kWords; ++w) words[i][w] = 0;
  }
  constexpr uint32_t kWarpsOfTeam = kStillWarps / kTeams;
  uint32_t last = team();  // the page whose values are next
  int place = team() % Shared::kStages, parity = 0;
#pragma unroll 1
  for (uint32_t which = team(); which < pages + kTeams; which += kTeams) {
    const uint32_t chunk = which / kChunk, slot = which % (kTurns * kChunk);
    const bool begins = which % kChunk < kTeams;  // a chunk
    // The team's warps take turns to ask.
    if (which / kTeams % kWarpsOfTeam == warp_ % kWarpsOfTeam && which + kAhead < pages) {
      if (lane_ == 0) supply_.Ask(which + kAhead);
      __syncwarp();
    }
    if (begins) {
      ptx::WaitPhase(&fixed.ready[chunk % kTurns], static_cast<int>(chunk / kTurns % 2));
      if (kLead > 1 && which < pages) supply_.Describe((chunk + kLead) * kChunk + warp_);
    }
    const int2 visible = *reinterpret_cast<const int2*>(&fixed.pages[slot].hidden);
    float2 constant = *reinterpret_cast<const float2*>(&fixed.constants[slot][2 * t_]);
    constant = make_float2(constant.x - reference_[0], constant.y - reference_[1]);
    const auto& stage = shared_->stages[place];
    if (which < pages) ptx::WaitPhase(&fixed.full[place], parity);
    ReadWords(keys, stage.keys);
    Scores(score, keys, stage.keys, constant);
    AddValues(words, scales, static_cast<int>(last % kChunk));
    ReadWords(words, stage.values);
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      scales[i] = *reinterpret_cast<const uint32_t*>(stage.values + Tile::kCodeBytes +
                                                     (first_group() + i) * kGroupTokens + 4 * t_);
    }
    ptx::ArriveWarp(&fixed.empty[place]);
    place += kTeams;
    if (place >= Shared::kStages) place -= Shared::kStages, parity ^= 1;
    if (begins) {
      if (chunk > 0) {
        const uint32_t before = (chunk - 1) % kTurns;
        AddMeans(fixed.value_means[before]);
        ptx::ArriveWarp(&fixed.done[before]);
      }
      if (which < pages) {
        if (kLead == 1) supply_.Describe((chunk + kLead) * kChunk + warp_);
        supply_.Publish((chunk + kLead) * kChunk + warp_, lane_);
      }
    }
    Weigh(score, visible.x, visible.y);
    last = which;
  }
}

template <int Bits, int Dim>
__device__ __forceinline__ void StillWorker<Bits, Dim>::Merge() {
  auto& fixed = shared_->fixed;
  __syncthreads();  // the stages are read
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    for (int i = 4; i < 32; i *= 2) sum_[h] += __shfl_xor_sync(~0u, sum_[h], i);
    if (g_ == 0) {
      fixed.maxima[warp_][2 * t_ + h] = begun_ ? reference_[h] : kNoScore;
      fixed.sums[warp_][2 * t_ + h] = sum_[h];
    }
#pragma unroll
    for (int f = 0; f < 2 * kPairs; ++f) {
      float* to = &shared_->outputs[warp_][2 * t_ + h][16 * f + g_];
      to[0] = output_[f][h] * (1.0f / LevelUnit(Bits));
      to[8] = output_[f][2 + h] * (1.0f / LevelUnit(Bits));
    }
  }
  __syncthreads();
}

// What StorePart reads.
template <int Bits, int Dim>
struct StillStates {
  const float (&maxima)[kStillWarps][kHeads], (&sums)[kStillWarps][kHeads];
  const float (&outputs)[kStillWarps][kHeads][Dim];
};

// Block (part, KV head and eight of its query heads, row).
template <int Bits, int Dim>
__global__ void __launch_bounds__(kStillThreads, 2)
    StillKernel(const __grid_constant__ PageAttention call) {
  extern __shared__ __align__(128) uint8_t memory[];
  using Shared = StillShared<Bits, Dim>;
  auto& shared = *reinterpret_cast<Shared*>(memory);
  auto& fixed = shared.fixed;
  {
    const LongPart part(call);
    if (!part.any()) return;
    if (threadIdx.x == 0) fixed.part = part;  // for later: registers are few
    if (threadIdx.x < Shared::kStages) {
      ptx::InitBarrier(&fixed.full[threadIdx.x], 1);
      ptx::InitBarrier(&fixed.empty[threadIdx.x],
                       kStillWarps / StillGroups(Bits) * ptx::kWarpArrivals);
    }
    if (threadIdx.x < Shared::kTurns) {
      ptx::InitBarrier(&fixed.ready[threadIdx.x], kStillWarps * ptx::kWarpArrivals);
      ptx::InitBarrier(&fixed.done[threadIdx.x], kStillWarps * ptx::kWarpArrivals);
    }
    ptx::PublishBarriers();
    const float* const basis = call.basis.arrays + 2 * part.kv_head * BasisSideFloats(Dim);
    BeginStill<Bits, Dim>(&shared, part.Queries(call), part.heads, call.scale * kLog2E, basis);
    __syncthreads();
  }
  StillWorker<Bits, Dim> worker(call, &shared);
  worker.Run();
  worker.Merge();
  const StillStates<Bits, Dim> states{fixed.maxima, fixed.sums, shared.outputs};
  for (int h = 0; h < fixed.part.heads; ++h) {
    StorePart<Dim, kStillWarps>(fixed.part.State(call, PageKindOfBits(Bits), h), states, h);
  }
}

template <int Bits, int Dim>
int Launch(const PageAttention& call, CUstream_st* stream) {
  if ((call.kinds >> PageKindOfBits(Bits) & 1) == 0) return cudaSuccess;
  constexpr int kBytes = sizeof(StillShared<Bits, Dim>);
  static_assert(kBytes <= kStillSharedBytes);
  if (const cudaError_t error = cudaFuncSetAttribute(
          StillKernel<Bits, Dim>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes)) {
    return error;
  }
  const dim3 grid(LongPartsMax(call.kv_blocks()), call.kv_blocks(), call.q.rows);
  StillKernel<Bits, Dim><<<grid, kStillThreads, kBytes, stream>>>(call);
  return cudaGetLastError();
}

}  // namespace

int AttendStillParts(const PageAttention& call, CUstream_st* stream) {
  if (const int error = AttendLoneParts(call, stream)) return error;
  if (call.head_dim == 64) return Launch<8, 64>(call, stream);
  if (call.head_dim == 128) return Launch<8, 128>(call, stream);
  return cudaErrorInvalidValue;
}

}  // namespace corpusd::cuda
