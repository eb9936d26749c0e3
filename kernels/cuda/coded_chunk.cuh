// kernels/cuda/coded_chunk.cuh -- what a block of page_coded.cu shares and does before it reads
// eight pages: where they lie, their queries in each page's frame and coordinates as integers of
// 16 bits, what a head adds to a page's scores. All threads of the block together.
#pragma once

#include "kernels/cuda/level_bytes.h"
#include "kernels/cuda/long_part.cuh"
#include "kernels/cuda/page_part.cuh"
#include "kernels/cuda/ptx/async_copy.cuh"

namespace corpusd::cuda {

constexpr int kCodedWarps = 8;
constexpr int kCodedThreads = kCodedWarps * 32;
// Of shared memory, when two blocks share a multiprocessor of 228 KB.
constexpr int kCodedSharedBytes = 113 * 1024;
// A query's largest coordinate is this integer at most: 256 * high + low, signed bytes.
constexpr float kLargestTerm = 32000.0f;

struct CodedPage {
  const uint8_t* keys;  // null if there is nothing to see
  const uint8_t* values;
  int64_t delta;  // from the page to the query
  int hidden, visible;
};

template <int Bits, int Dim>
struct CodedFixed {
  static constexpr int kWords = Dim / 2 + 4;  // rows 16 bytes apart in the banks
  static constexpr int kPairs = Dim / 32;     // of fragments: the depth of an integer product
  union {
    uint4 basis[Dim / 16][Dim / 16][32];  // halves: B operands of 16 columns
    float outputs[kCodedWarps][kHeads][Dim];
  };
  uint32_t turned[kChunkRows][kWords];  // halves of queries in the pages' frames
  uint4 terms[kChunk][kPairs][32];      // B operands of a page's keys: high bytes, then low
  float queries[kHeads][Dim];           // scaled
  float mean_coordinates[Dim];
  uint32_t value_means[kChunk / 2][Dim];  // halves of two pages
  uint32_t key_means[kChunk][kWords];     // halves
  float parts[kPairs][kChunkRows];
  int totals[kPairs][kChunkRows];
  float constants[kChunk][kHeads];  // what a head adds to all scores of a page
  int offsets[kChunk][kHeads];      // what the bytes' 128 adds to its products
  float level_units[kHeads];        // of the terms times levels
  float inverse_units[kHeads];      // of the terms
  float maxima[kCodedWarps][kHeads], sums[kCodedWarps][kHeads];
  float norms[kCodedWarps];
  // Twice, for even and odd lanes: what differs between lanes stays out of the uniform registers,
  // from which every look-up would copy it.
  LevelTable<Bits> table[2];
  CodedPage pages[2][kChunk];  // of this chunk and the next, in turns
  LongPart part;
};

// Groups of 16 tokens that a warp takes of a page: as many as its registers hold. So many teams of
// warps share the pages of a chunk.
constexpr int GroupsOfWarp(int bits, int dim) { return bits == 8 ? 1 : 2; }

template <int Bits, int Dim>
struct CodedShared : CodedFixed<Bits, Dim> {
  using Tile = CodedTile<Bits, Dim>;
  // Of a warp and page: the codes of its groups of keys or values, and their scales.
  static constexpr int kSlotBytes = GroupsOfWarp(Bits, Dim) * (Tile::kGroupBytes + 16);
  static constexpr int kRoom =
      (kCodedSharedBytes - int{sizeof(CodedFixed<Bits, Dim>)}) / (2 * kCodedWarps * kSlotBytes);
  static constexpr int kStages = kRoom < 2 ? 1 : kRoom < 4 ? 2 : 4;  // a divisor of a chunk
  static_assert(kRoom >= 1);
  alignas(16) uint8_t keys[kStages][kCodedWarps][kSlotBytes];
  alignas(16) uint8_t values[kStages][kCodedWarps][kSlotBytes];
};

// The pages from `first` on; what of them is read soon is asked for.
template <int Bits, int Dim>
__device__ void DescribePages(CodedPage (&pages)[kChunk], const PageAttention& call,
                              const LongPart& part, uint32_t first) {
  using Tile = CodedTile<Bits, Dim>;
  if (threadIdx.x >= kChunk) return;
  CodedPage& to = pages[threadIdx.x];
  to = {nullptr, nullptr, 0, 0, 0};
  const uint32_t at = first + threadIdx.x;
  if (at >= part.end) return;
  const DevicePage page = call.pages[part.row.first_page + at];
  if (PageKindOf(page.key_codec, page.value_codec) != PageKindOfBits(Bits)) return;
  const int visible = VisibleEnd(page, part.row.position);
  if (page.hidden >= visible) return;
  to = {KeyTile(page, call.layer, part.kv_head),
        ValueTile(page, call.layer, part.kv_head, call.kv_heads),
        part.row.position - page.first_position, page.hidden, visible};
  ptx::PrefetchL2(to.keys + Tile::kCodeBytes + kTileTokens);
  ptx::PrefetchL2(to.values + Tile::kCodeBytes + kTileTokens);
  if (call.rope.cos_sin == nullptr) return;
  const float* turn = call.rope.cos_sin + to.delta * 2 * call.rope.half_dim;
  for (uint32_t i = 0; i < 2 * call.rope.half_dim; i += 32) ptx::PrefetchL2(turn + i);
}

// The basis as halves in the order of a B operand, the scaled queries, and the units of their
// terms: no coordinate exceeds the query's norm times the longest column's. basis: of the keys.
template <int Bits, int Dim>
__device__ void BeginQueries(CodedFixed<Bits, Dim>* shared, const float* q, int heads, float scale,
                             const float* basis) {
  constexpr int kTeams = kCodedThreads / Dim, kPairsOfTeam = Dim / 2 / kTeams;
  for (int i = threadIdx.x; i < kHeads * Dim; i += kCodedThreads) {
    shared->queries[i / Dim][i % Dim] = i < heads * Dim ? q[i] * scale : 0.0f;
  }
  auto* turned = &shared->turned[0][0];  // rows of heads that are not there stay zero
  for (int i = threadIdx.x; i < int{sizeof(shared->turned) / 4}; i += kCodedThreads) turned[i] = 0;
  if (threadIdx.x < 2) shared->table[threadIdx.x] = MakeLevelTable<Bits>();
  const float* means = basis + BasisPartOffset(BasisPart::kMeanCoordinates, Dim);
  if (threadIdx.x < Dim) shared->mean_coordinates[threadIdx.x] = __ldg(means + threadIdx.x);
  const int j = threadIdx.x % Dim, team = threadIdx.x / Dim;
  const float* from = basis + BasisPartOffset(BasisPart::kQuery, Dim) + j;
  float square = 0;
#pragma unroll 8
  for (int i = 0; i < kPairsOfTeam; ++i) {
    const int pair = team * kPairsOfTeam + i;
    const float x = __ldg(from + 2 * pair * Dim), y = __ldg(from + (2 * pair + 1) * Dim);
    square = fmaf(x, x, fmaf(y, y, square));
    auto* to = reinterpret_cast<uint32_t*>(&shared->basis[pair / 8][j / 16][j % 8 * 4 + pair % 4]);
    to[j / 8 % 2 * 2 + pair / 4 % 2] = PackHalves(x, y);
  }
  // The teams' squares of a column, then the largest; the terms' memory is free yet.
  auto* squares = reinterpret_cast<float*>(shared->terms);
  squares[threadIdx.x] = square;
  __syncthreads();
  square = 0;
#pragma unroll
  for (int i = 0; i < kTeams; ++i) square += squares[i * Dim + j];
  for (int i = 16; i > 0; i /= 2) square = fmaxf(square, __shfl_xor_sync(~0u, square, i));
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (lane == 0) shared->norms[warp] = square;
  float norm = 0;
  for (int i = lane; i < Dim; i += 32) {
    norm = fmaf(shared->queries[warp][i], shared->queries[warp][i], norm);
  }
  for (int i = 16; i > 0; i /= 2) norm += __shfl_xor_sync(~0u, norm, i);
  __syncthreads();
  for (int i = 0; i < kCodedWarps; ++i) square = fmaxf(square, shared->norms[i]);
  if (lane == 0) {
    const float unit = sqrtf(norm) * sqrtf(square) * (1.0f / kLargestTerm);
    shared->inverse_units[warp] = unit > 0 ? 1.0f / unit : 0.0f;
    shared->level_units[warp] = unit * (1.0f / LevelUnit(Bits));
  }
  __syncthreads();
}

// The means of the pages' blocks, and the queries in each page's frame: a thread has a pair of
// dims.
template <int Bits, int Dim>
__device__ void TurnChunk(CodedFixed<Bits, Dim>* shared, const CodedPage (&pages)[kChunk],
                          const DeviceRope& rope, int heads) {
  constexpr int kMeans = CodedTile<Bits, Dim>::kCodeBytes + kTileTokens;
  constexpr int kTeams = kCodedThreads / (Dim / 2);
  for (int i = threadIdx.x; i < kChunk / 2 * Dim / 4; i += kCodedThreads) {
    const int first = i / (Dim / 4) * 2, at = i % (Dim / 4) * 4;
    char4 keys[2], values[2];
#pragma unroll
    for (int p = 0; p < 2; ++p) {
      const CodedPage& page = pages[first + p];
      keys[p] = values[p] = make_char4(0, 0, 0, 0);
      if (page.keys != nullptr) {
        keys[p] = __ldg(reinterpret_cast<const char4*>(page.keys + kMeans + at));
        values[p] = __ldg(reinterpret_cast<const char4*>(page.values + kMeans + at));
      }
      *reinterpret_cast<uint2*>(&shared->key_means[first + p][at / 2]) =
          make_uint2(PackHalves(keys[p].x * kMeanStep, keys[p].y * kMeanStep),
                     PackHalves(keys[p].z * kMeanStep, keys[p].w * kMeanStep));
    }
    constexpr float kStep = kMeanStep * LevelUnit(Bits);
    *reinterpret_cast<uint4*>(&shared->value_means[first / 2][at]) =
        make_uint4(PackHalves(values[0].x * kStep, values[1].x * kStep),
                   PackHalves(values[0].y * kStep, values[1].y * kStep),
                   PackHalves(values[0].z * kStep, values[1].z * kStep),
                   PackHalves(values[0].w * kStep, values[1].w * kStep));
  }
  const uint32_t pairs = rope.cos_sin == nullptr ? 0 : rope.half_dim;
  const int pair = threadIdx.x % (Dim / 2);
#pragma unroll
  for (int i = 0; i < kChunk / kTeams; ++i) {
    const int page = i * kTeams + threadIdx.x / (Dim / 2);
    float2 turn = make_float2(1, 0);
    if (pair < pairs) {
      turn = __ldg(reinterpret_cast<const float2*>(rope.cos_sin) +
                   pages[page].delta * rope.half_dim + pair);
    }
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      if (h >= heads) break;
      const float2 x = *reinterpret_cast<const float2*>(&shared->queries[h][2 * pair]);
      shared->turned[page * kHeads + h][pair] =
          PackHalves(x.x * turn.x - x.y * turn.y, x.y * turn.x + x.x * turn.y);
    }
  }
  __syncthreads();
}

// 32 coordinates of one page and head, two of each eight in this lane, become its terms and their
// sum. by_means: their product with the block's means, in the lane that `keeps` it.
template <int Bits, int Dim>
__device__ __forceinline__ void PutTerms(CodedFixed<Bits, Dim>* shared, const float2 (&x)[4],
                                         float by_means, bool keeps, int page, int pair, int lane) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: sums with it are rounded to integers
  constexpr uint32_t kBits = 0x4B400000u;
  const int g = lane / 4, t = lane % 4;
  const float inverse = shared->inverse_units[g];
  uint32_t u[4][2];
  float sum = 0;
  uint32_t total = -8 * (kBits + 128);
#pragma unroll
  for (int n = 0; n < 4; ++n) {
    const auto mean =
        *reinterpret_cast<const float2*>(&shared->mean_coordinates[32 * pair + 8 * n + 2 * t]);
    sum = fmaf(x[n].x, mean.x, fmaf(x[n].y, mean.y, sum));
    u[n][0] = __float_as_uint(fmaf(x[n].x, inverse, kRound + 128));
    u[n][1] = __float_as_uint(fmaf(x[n].y, inverse, kRound + 128));
    total += u[n][0] + u[n][1];
  }
  uint4 terms;
  if constexpr (Bits == 8) {  // as KeyColumn says
    SplitBytes(u[0][0], u[0][1], u[1][0], u[1][1], &terms.x, &terms.z);
    SplitBytes(u[2][0], u[2][1], u[3][0], u[3][1], &terms.y, &terms.w);
  } else {
    SplitBytes(u[0][0], u[2][0], u[1][0], u[3][0], &terms.x, &terms.z);
    SplitBytes(u[0][1], u[2][1], u[1][1], u[3][1], &terms.y, &terms.w);
  }
  shared->terms[page][pair][lane] = terms;
  for (int i = 1; i < 4; i *= 2) {
    sum += __shfl_xor_sync(~0u, sum, i);
    total += __shfl_xor_sync(~0u, total, i);
  }
  if (keeps) {
    shared->parts[pair][page * kHeads + g] = sum + by_means;
    shared->totals[pair][page * kHeads + g] = static_cast<int>(total);
  }
}

// The turned queries times the basis: a warp has 32 columns and a share of the pages, two at a
// time.
template <int Bits, int Dim>
__device__ void ProjectChunk(CodedFixed<Bits, Dim>* shared) {
  constexpr int kPairs = Dim / 32, kTiles = kPairs / 2;  // tiles of 16 rows: two pages
  static_assert(kChunkRows / 16 * kPairs == kTiles * kCodedWarps);
  // Opaque, so that nothing of this is kept in registers from one chunk to the next.
  const int thread = ptx::Opaque(threadIdx.x), lane = thread % 32, t = lane % 4;
  const int warp = thread / 32, pair = warp % kPairs;
#pragma unroll 1
  for (int m = warp / kPairs * kTiles; m < (warp / kPairs + 1) * kTiles; ++m) {
    float c[4][4] = {};
#pragma unroll 4
    for (int k = 0; k < Dim / 16; ++k) {
      const uint4 x = shared->basis[k][2 * pair][lane], y = shared->basis[k][2 * pair + 1][lane];
      uint32_t a[4];
      ptx::LoadMatrices(
          a, ptx::SharedAddress(&shared->turned[16 * m + lane % 16][8 * k + lane / 16 * 4]));
      ptx::MmaM16N8K16(c[0], a, x.x, x.y);
      ptx::MmaM16N8K16(c[1], a, x.z, x.w);
      ptx::MmaM16N8K16(c[2], a, y.x, y.y);
      ptx::MmaM16N8K16(c[3], a, y.z, y.w);
    }
    // All rows times the means of all pages: of page 2 m + i is what is kept.
    float product[4] = {};
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      const uint32_t* b = &shared->key_means[lane / 4][16 * pair + 8 * k + t];
      const auto &x = c[2 * k], &y = c[2 * k + 1];
      const uint32_t a[4] = {PackHalves(x[0], x[1]), PackHalves(x[2], x[3]), PackHalves(y[0], y[1]),
                             PackHalves(y[2], y[3])};
      ptx::MmaM16N8K16(product, a, b[0], b[4]);
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float2 x[4];
#pragma unroll
      for (int n = 0; n < 4; ++n) x[n] = make_float2(c[n][2 * i], c[n][2 * i + 1]);
      PutTerms<Bits, Dim>(shared, x, product[3 * i], t == m, 2 * m + i, pair, lane);
    }
  }
  __syncthreads();
  if (threadIdx.x < kChunkRows) {
    float sum = 0;
    int total = 0;
#pragma unroll
    for (int p = 0; p < kPairs; ++p) {
      sum += shared->parts[p][threadIdx.x];
      total += shared->totals[p][threadIdx.x];
    }
    shared->constants[threadIdx.x / kHeads][threadIdx.x % kHeads] = sum;
    shared->offsets[threadIdx.x / kHeads][threadIdx.x % kHeads] = 128 * total;
  }
  __syncthreads();
}

}  // namespace corpusd::cuda
