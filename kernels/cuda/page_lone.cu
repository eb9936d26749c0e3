// AttendLoneParts: pages in codes of 2 to 4 bits, of rows whose layer has no positions. Their
// queries are the same for every page, so they are brought into coordinates once. A block takes a
// long stretch of one row's pages for one KV head, those whose keys and values are coded in one
// width; every warp takes whole pages of it, all by itself: it describes them, asks for some groups
// of 16 tokens at a time, one to three such units ahead, and multiplies as
// page_coded.cu does: scores are integer products with the keys' levels as bytes, weights are
// halves and stay in its registers, and so become the values' levels. What a page costs beside its
// codes is so paid once, and no warp waits for another's work.
//
// A block has two parts, eight warps each, and a multiprocessor to itself: 512 threads, at most 128
// registers, 226 KB of shared memory. As two blocks the parts would end one long after the other,
// since a scheduler prefers the older of its warps; here no warp is more than four pages ahead.
#include <cuda_runtime.h>

#include <type_traits>

#include "kernels/cuda/early_launch.h"
#include "kernels/cuda/lone_block.cuh"

namespace corpusd::cuda {
namespace {

// A warp's softmax over its pages. Lane 4g + t has heads 2t, 2t + 1; scores of tokens g, g + 8;
// value sums of dims g, g + 8 of each fragment, in units of levels.
template <int Bits, int Dim>
class LoneWorker {
 public:
  using Shared = LoneShared<Bits, Dim>;
  using Tile = CodedTile<Bits, Dim>;
  static constexpr int kPairs = Dim / 32, kCount = Shared::kStep;
  static constexpr int kSteps = Shared::kUnitGroups / kCount;  // of a unit
  static constexpr bool kSigned = Bits < 4;                    // the keys' bytes; else 128 + level

  __device__ __forceinline__ LoneWorker(const PageAttention& call, Shared* shared)
      : warp_(__shfl_sync(~0u, static_cast<int>(threadIdx.x % kLoneThreads / 32), 0)),
        lane_(threadIdx.x % 32),
        g_(lane_ / 4),
        t_(lane_ % 4),
        supply_(call, shared, warp_),
        shared_(shared),
        own_(shared->own[warp_]) {}

  // Asks for the first pages, before the queries are in coordinates; and all else, after that.
  __device__ __forceinline__ void Begin();
  // pace: of all warps of the block. rounds: pages of the warp that has the most of them.
  __device__ __forceinline__ void Run(const PageAttention& call, Pace* pace, uint32_t rounds);
  // Puts the warp's state into shared memory, over the units.
  __device__ __forceinline__ void Merge();

 private:
  using Words = uint32_t[kCount][Tile::kWords];
  // What the block's begin left for all pages.
  __device__ __forceinline__ void ReadFixed(const PageAttention& call);
  __device__ __forceinline__ void ReadWords(Words& words, const uint8_t* groups) const;
  // The groups of `unit` from number `step` on, which begin at token `token` of the page.
  __device__ __forceinline__ void Step(const typename Shared::Unit& unit, int step, int2 seen,
                                       float2 constant, int which, int token);
  // scales: of the first group's tokens.
  __device__ __forceinline__ void Scores(float (&score)[kCount][4], const Words& words,
                                         const uint8_t* scales, float2 constant) const;
  __device__ __forceinline__ void Weigh(float (&score)[kCount][4], int hidden, int visible);
  __device__ __forceinline__ void Raise(float (&score)[kCount][4]);
  __device__ __forceinline__ void Pack(const float (&score)[kCount][4]);
  // scales: of tokens 2t, 2t + 8, 2t + 1, 2t + 9.
  __device__ __forceinline__ void AddValues(const Words& words, const uint32_t (&scales)[kCount],
                                            int at);
  // What is waiting becomes part of the sums, and nothing is waiting.
  __device__ __forceinline__ void Flush();
  __device__ __forceinline__ void TakeBias();
  __device__ __forceinline__ void AddMeans(uint32_t batch);

  const int warp_, lane_, g_, t_;
  LoneSupply<Bits, Dim> supply_;
  Shared* const shared_;
  typename Shared::Own& own_;
  // A product in place of a sum pays where look-ups are two.
  std::conditional_t<Bits == 4, ProductTable<4>, LevelTable<Bits>> table_;
  LevelTable<Bits> key_table_;
  int offsets_[2];
  uint32_t scale_base_;
  bool begun_ = false;  // a score was seen
  float reference_[2] = {}, sum_[2] = {};
  float output_[2 * kPairs][4] = {};
  float extra_[4] = {};  // 0, 1: the mass of page g of the batch; 2, 3: what outputs have too much
  // The values that wait: their words, scales and weights (halves with heads down: of tokens 0-7
  // and 8-15), and their page's place in the batch.
  Words words_ = {};
  uint32_t scales_[kCount] = {};
  uint32_t weight_[kCount][2] = {};
  int at_ = 0;
};

template <int Bits, int Dim>
__device__ __forceinline__ void LoneWorker<Bits, Dim>::ReadWords(Words& words,
                                                                 const uint8_t* groups) const {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    ReadGroupWords<Tile>(words[i], groups + i * Tile::kGroupBytes, lane_);
  }
}

// constant: what the two heads add to all scores of the page.
template <int Bits, int Dim>
__device__ __forceinline__ void LoneWorker<Bits, Dim>::Scores(float (&score)[kCount][4],
                                                              const Words& words,
                                                              const uint8_t* scales,
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
      if constexpr (kSigned) {
        KeyBytes<Bits>(key_table_, words[i], p, a);
      } else {
        KeyBytes<Bits>(table_, words[i], p, a);
      }
      if constexpr (kSigned) {
        ptx::MmaSignedBytes(high[i], a, b.x, b.y);
        ptx::MmaSignedBytes(low[i], a, b.z, b.w);
      } else {
        ptx::MmaBytes(high[i], a, b.x, b.y);
        ptx::MmaBytes(low[i], a, b.z, b.w);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const uint32_t pair = *reinterpret_cast<const uint16_t*>(scales + i * kGroupTokens + 2 * g_);
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
__device__ __forceinline__ void LoneWorker<Bits, Dim>::Raise(float (&score)[kCount][4]) {
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
__device__ __forceinline__ void LoneWorker<Bits, Dim>::Pack(const float (&score)[kCount][4]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      weight_[i][row] = PackHalves(ptx::Exp2(score[i][2 * row]), ptx::Exp2(score[i][2 * row + 1]));
    }
  }
}

// Scores, less the reference, become weights; slots [hidden, visible) of the step are seen.
template <int Bits, int Dim>
__device__ __forceinline__ void LoneWorker<Bits, Dim>::Weigh(float (&score)[kCount][4], int hidden,
                                                             int visible) {
  if (hidden > 0 || visible < kCount * kGroupTokens) {
#pragma unroll
    for (int i = 0; i < 4 * kCount; ++i) {
      const int slot = i / 4 * kGroupTokens + g_ + i % 4 / 2 * 8;
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
__device__ __forceinline__ void LoneWorker<Bits, Dim>::AddValues(const Words& words,
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

template <int Bits, int Dim>
__device__ __forceinline__ void LoneWorker<Bits, Dim>::TakeBias() {
#pragma unroll
  for (int f = 0; f < 2 * kPairs; ++f) {
    output_[f][0] += extra_[2], output_[f][2] += extra_[2];
    output_[f][1] += extra_[3], output_[f][3] += extra_[3];
  }
  extra_[2] = extra_[3] = 0;
}

template <int Bits, int Dim>
__device__ __forceinline__ void LoneWorker<Bits, Dim>::Flush() {
  AddValues(words_, scales_, at_);
#pragma unroll
  for (int i = 0; i < kCount; ++i) weight_[i][0] = weight_[i][1] = 0;
}

// The masses of the batch's pages times the means of their blocks: pages are the columns of A.
template <int Bits, int Dim>
__device__ __forceinline__ void LoneWorker<Bits, Dim>::AddMeans(uint32_t batch) {
  constexpr int kMeans = Tile::kCodeBytes + kTileTokens;
  constexpr float kShare = 1.0f / 8;  // of a mass, that it fits into a half
  constexpr float kUnit = kMeanStep * LevelUnit(Bits) / kShare;
  const uint32_t b = ptx::TransposeHalves(PackHalves(extra_[0] * kShare, extra_[1] * kShare));
  const uint8_t* from[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    from[i] = own_.pages[(batch * Shared::kBatch + 2 * t_ + i) % Shared::kRing].values;
  }
#pragma unroll
  for (int f = 0; f < 2 * kPairs; ++f) {
    uint32_t a[4] = {};
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      uint32_t mean[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        mean[i] = from[i] == nullptr ? 0u : __ldg(from[i] + (kMeans + 16 * f + 8 * row) + g_);
      }
      // Two halves of 1152 + mean, then of the mean.
      const uint32_t biased = (mean[1] * 65536u + mean[0]) ^ kLevelBias;
      const __half2 plain = __hadd2(HalfPair(biased), HalfPair(0xE480E480u));
      a[row] = HalfBits(__hmul2(plain, __float2half2_rn(kUnit)));
    }
    ptx::MmaM16N8K16(output_[f], a, b, 0);
  }
  sum_[0] += extra_[0], sum_[1] += extra_[1];
  extra_[0] = extra_[1] = 0;
}

template <int Bits, int Dim>
__device__ __forceinline__ void LoneWorker<Bits, Dim>::ReadFixed(const PageAttention& call) {
  const auto& fixed = shared_->fixed;
  if constexpr (Bits == 4) {
    table_ = {fixed.table[lane_ % 2], call.one, call.minus_one};
  } else {
    table_ = fixed.table[lane_ % 2];
  }
  key_table_ = fixed.key_table[lane_ % 2];
  const auto offset = *reinterpret_cast<const int2*>(&fixed.offsets[2 * t_]);
  offsets_[0] = -offset.x, offsets_[1] = -offset.y;
  scale_base_ = kScaleBase + fixed.unit_bits;
}

// The keys of a step and the values of the one before are one stretch of code without a branch: so
// their instructions fill each other's gaps.
template <int Bits, int Dim>
__device__ __forceinline__ void LoneWorker<Bits, Dim>::Step(const typename Shared::Unit& unit,
                                                            int step, int2 seen, float2 constant,
                                                            int which, int token) {
  const int first = step * kCount * Tile::kGroupBytes;
  const auto& sides = own_.sides[which % Shared::kSides];
  Words keys;
  float score[kCount][4];
  ReadWords(keys, unit.keys + first);
  Scores(score, keys, sides.keys + token,
         make_float2(constant.x - reference_[0], constant.y - reference_[1]));
  AddValues(words_, scales_, at_);
  ReadWords(words_, unit.values + first);
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    scales_[i] =
        *reinterpret_cast<const uint32_t*>(sides.values + token + i * kGroupTokens + 4 * t_);
  }
  at_ = which % Shared::kBatch;
  Weigh(score, seen.x - token, seen.y - token);
}

template <int Bits, int Dim>
__device__ __forceinline__ void LoneWorker<Bits, Dim>::Begin() {
  supply_.Describe(0, 2);
#pragma unroll 1
  for (int i = 0; i < Shared::kSlots; ++i) supply_.Ask(i, i);
}

template <int Bits, int Dim>
__device__ __forceinline__ void LoneWorker<Bits, Dim>::Run(const PageAttention& call, Pace* pace,
                                                           uint32_t rounds) {
  ReadFixed(call);
  const uint32_t pages = supply_.pages();
  int slot = 0;
#pragma unroll 1
  for (uint32_t which = 0; which < rounds; ++which) {
    pace->Wait(which);
    if (which >= pages) {
      pace->Arrive(which);
      continue;
    }
    if (which % Shared::kBatch == 0) {
      const uint32_t batch = which / Shared::kBatch;
      if (batch > 0) {
        Flush();
        AddMeans(batch - 1);
        supply_.Describe(batch + 1);
      }
      supply_.FindConstants(batch);
    }
    TakeBias();
    const auto seen = *reinterpret_cast<const int2*>(&own_.pages[which % Shared::kRing].hidden);
    const auto constant =
        *reinterpret_cast<const float2*>(&own_.constants[which % Shared::kRing][2 * t_]);
#pragma unroll 1
    for (int u = 0; u < Shared::kUnits; ++u) {
      ptx::WaitCopies<Shared::kSlots - 1>();
      __syncwarp();
      if (seen.x < seen.y) {
#pragma unroll 1
        for (int step = 0; step < kSteps; ++step) {
          Step(own_.units[slot], step, seen, constant, static_cast<int>(which),
               (u * Shared::kUnitGroups + step * kCount) * kGroupTokens);
        }
      }
      __syncwarp();
      supply_.Ask(which * Shared::kUnits + u + Shared::kSlots, slot);
      if (++slot == Shared::kSlots) slot = 0;
    }
    pace->Arrive(which);
  }
  if (pages == 0) return;
  Flush();
  TakeBias();
  AddMeans((pages - 1) / Shared::kBatch);
}

template <int Bits, int Dim>
__device__ __forceinline__ void LoneWorker<Bits, Dim>::Merge() {
  auto& fixed = shared_->fixed;
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
}

// Block (two parts of all KV heads, each with eight of its query heads; 0; row).
template <int Bits, int Dim>
__global__ void __launch_bounds__(kLoneParts* kLoneThreads, 1)
    LoneKernel(const __grid_constant__ PageAttention call) {
  extern __shared__ __align__(128) uint8_t memory[];
  auto& block = *reinterpret_cast<LoneBlock<Bits, Dim>*>(memory);
  const int half = __shfl_sync(~0u, static_cast<int>(threadIdx.x / kLoneThreads), 0);
  const int thread = threadIdx.x % kLoneThreads;
  auto& shared = block.parts[half];
  auto& fixed = shared.fixed;
  const uint32_t parts = LongPartsMax(call.kv_blocks()), all = parts * call.kv_blocks();
  // An odd number of parts: the last block's other half has nothing, but comes to all barriers.
  const uint32_t number = kLoneParts * blockIdx.x + half, own = min(number, all - 1);
  const uint32_t kv_block = own / parts, chunks = call.kv_blocks() / call.kv_heads;
  const float* const basis = call.basis.arrays + 2 * (kv_block / chunks) * BasisSideFloats(Dim);
  LongPart part(call, own % parts, kv_block);
  if (part.parts == 0) return;  // not a long row
  if (number >= all) part.end = part.first;
  if (thread == 0) fixed.part = part;  // for later: registers are few
  LoneWorker<Bits, Dim> worker(call, &shared);
  block.pace.Init();
  ptx::PublishBarriers();
  __syncthreads();
  worker.Begin();
  BeginLone<Bits, Dim>(&shared, call.Coordinates(blockIdx.z, kv_block),
                       basis + BasisPartOffset(BasisPart::kMeanCoordinates, Dim), thread);
  __syncthreads();
  uint32_t most = 0;
  for (const auto& each : block.parts) most = max(most, each.fixed.part.pages());
  worker.Run(call, &block.pace, (most + kLoneWarps - 1) / kLoneWarps);
  ptx::AdmitKernelBehind();
  __syncthreads();  // the units are read
  worker.Merge();
  __syncthreads();
  if (fixed.part.any()) StoreHeads<Bits, Dim>(call, shared, thread);
}

template <int Bits, int Dim>
int LaunchLone(const PageAttention& call, CUstream_st* stream) {
  if ((call.kinds >> PageKindOfBits(Bits) & 1) == 0) return cudaSuccess;
  constexpr int kBytes = sizeof(LoneBlock<Bits, Dim>);
  static_assert(kBytes <= 227 * 1024);
  if (const cudaError_t error = cudaFuncSetAttribute(
          LoneKernel<Bits, Dim>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes)) {
    return error;
  }
  const uint32_t parts = LongPartsMax(call.kv_blocks()) * call.kv_blocks();
  return LaunchEarly(LoneKernel<Bits, Dim>,
                     dim3((parts + kLoneParts - 1) / kLoneParts, 1, call.q.rows),
                     kLoneParts * kLoneThreads, kBytes, stream, call);
}

template <int Dim>
int LaunchLoneWidths(const PageAttention& call, CUstream_st* stream) {
  if (const int error = LaunchLone<2, Dim>(call, stream)) return error;
  if (const int error = LaunchLone<3, Dim>(call, stream)) return error;
  return LaunchLone<4, Dim>(call, stream);
}

}  // namespace

int AttendLoneParts(const PageAttention& call, CUstream_st* stream) {
  constexpr uint32_t kOwn =
      1u << PageKindOfBits(2) | 1u << PageKindOfBits(3) | 1u << PageKindOfBits(4);
  if ((call.kinds & kOwn) == 0) return cudaSuccess;
  if (const int error = FindCoordinates(call, stream)) return error;
  if (call.head_dim == 64) return LaunchLoneWidths<64>(call, stream);
  if (call.head_dim == 128) return LaunchLoneWidths<128>(call, stream);
  return cudaErrorInvalidValue;
}

}  // namespace corpusd::cuda
