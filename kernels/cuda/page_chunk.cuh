// kernels/cuda/page_chunk.cuh -- what a block of page_long.cu does before it reads eight pages:
// where they lie, what their queries are in each page's frame and coordinates, what a head adds to
// their scores. All threads of the block together.
#pragma once

#include "kernels/cuda/long_part.cuh"
#include "kernels/cuda/page_part.cuh"
#include "kernels/cuda/ptx/async_copy.cuh"

namespace corpusd::cuda {

constexpr int kLongWarps = kGroups;
constexpr int kLongThreads = kLongWarps * 32;
constexpr bool IsNarrow(PageCodec codec) { return static_cast<int>(codec) <= 4; }
constexpr int TermsOf(PageCodec codec) { return IsNarrow(codec) ? 1 : 2; }

struct LongPage {
  const uint8_t* keys;
  const uint8_t* values;
  int64_t delta;        // from the page to the query
  int hidden, visible;  // nothing to see unless hidden < visible
  PageCodec key_codec, value_codec;
};

template <int Dim>
struct LongShared {
  static constexpr int kWords = Dim / 2 + 4;  // rows 16 bytes apart in the banks
  float queries[kHeads][Dim];                 // scaled
  union {
    uint32_t turned[2][kChunkRows][kWords];  // two half terms
    float outputs[kLongWarps][kHeads][Dim];
  };
  uint32_t terms[kChunk][2][kHeads][kWords];  // of coordinates, as the page's keys want them
  float parts[kLongWarps][kChunkRows];
  float constants[kChunk][kHeads];  // what a head adds to all scores of a page
  int8_t key_means[kChunk][Dim], value_means[kChunk][Dim];
  LongPage pages[kChunk];
  LongPart part;
  uint32_t from, until;  // the stretch of the part's pages that is looked at
  float maxima[kLongWarps][kHeads], sums[kLongWarps][kHeads];
};

// Whether a page of the row is none of those that page_coded.cu takes.
__device__ __forceinline__ bool IsOtherPage(const PageAttention& call, const LongPart& part,
                                            uint32_t index) {
  const DevicePage& page = call.pages[part.row.first_page + index];
  return PageKindOf(page.key_codec, page.value_codec) == kOtherPages;
}

// The part, and the stretch from its first such page to its last: pages of a question's own are few
// and together. Empty if there is none. All threads.
template <int Dim>
__device__ void BeginPart(LongShared<Dim>* shared, const PageAttention& call,
                          const LongPart& part) {
  const bool all = call.kinds == 1u << kOtherPages;
  if (threadIdx.x == 0) {
    shared->part = part;
    shared->from = all ? part.first : part.end;
    shared->until = all ? part.end : part.first;
  }
  __syncthreads();
  if (all) return;
  for (uint32_t i = part.first + threadIdx.x; i < part.end; i += kLongThreads) {
    if (!IsOtherPage(call, part, i)) continue;
    atomicMin(&shared->from, i);
    atomicMax(&shared->until, i + 1);
  }
  __syncthreads();
}

template <int Dim>
__device__ void DescribePages(LongShared<Dim>* shared, const PageAttention& call, uint32_t first) {
  const LongPart& part = shared->part;
  const int i = threadIdx.x;
  if (i < kChunk) {
    LongPage& to = shared->pages[i];
    to = {nullptr, nullptr, 0, 0, 0, PageCodec::kBf16, PageCodec::kBf16};
    DevicePage page;
    page.key_codec = page.value_codec = PageCodec::kCq2;
    if (first + i < shared->until) page = call.pages[part.row.first_page + first + i];
    if (PageKindOf(page.key_codec, page.value_codec) == kOtherPages) {
      to = {KeyTile(page, call.layer, part.kv_head),
            ValueTile(page, call.layer, part.kv_head, call.kv_heads),
            part.row.position - page.first_position,
            page.hidden,
            VisibleEnd(page, part.row.position),
            page.key_codec,
            page.value_codec};
    }
  }
  __syncthreads();
}

__device__ __forceinline__ int TileCodeBytes(PageCodec codec, int dim) {
  return kTileTokens * dim * static_cast<int>(codec) / 8;
}

// The means of the pages' blocks, and the queries in each page's frame.
template <int Dim>
__device__ void TurnChunk(LongShared<Dim>* shared, const DeviceRope& rope) {
  for (int i = threadIdx.x; i < kChunk * Dim / 4; i += kLongThreads) {
    const int page = i / (Dim / 4), at = i % (Dim / 4) * 4;
    const LongPage& from = shared->pages[page];
    uint32_t keys = 0, values = 0;
    if (from.hidden < from.visible) {
      if (IsCodedPage(from.key_codec)) {
        keys = __ldg(reinterpret_cast<const uint32_t*>(
            from.keys + TileCodeBytes(from.key_codec, Dim) + kTileTokens + at));
      }
      if (IsCodedPage(from.value_codec)) {
        values = __ldg(reinterpret_cast<const uint32_t*>(
            from.values + TileCodeBytes(from.value_codec, Dim) + kTileTokens + at));
      }
    }
    *reinterpret_cast<uint32_t*>(&shared->key_means[page][at]) = keys;
    *reinterpret_cast<uint32_t*>(&shared->value_means[page][at]) = values;
  }
  const uint32_t pairs = rope.cos_sin == nullptr ? 0 : rope.half_dim;
#pragma unroll 4
  for (int i = threadIdx.x; i < kChunkRows * Dim / 2; i += kLongThreads) {
    const int row = i / (Dim / 2), pair = i % (Dim / 2);
    const float x = shared->queries[row % kHeads][2 * pair];
    const float y = shared->queries[row % kHeads][2 * pair + 1];
    float a = x, b = y;
    if (pair < pairs) {
      const float2 turn = __ldg(reinterpret_cast<const float2*>(rope.cos_sin) +
                                shared->pages[row / kHeads].delta * rope.half_dim + pair);
      a = x * turn.x - y * turn.y;
      b = y * turn.x + x * turn.y;
    }
    const uint32_t high = PackHalves(a, b);
    const float2 kept = __half22float2(HalfPair(high));
    shared->turned[0][row][pair] = high;
    shared->turned[1][row][pair] = PackHalves(a - kept.x, b - kept.y);
  }
  __syncthreads();
}

// Eight columns of the product of all turned queries with the basis. Lane 4g + t has rows g and
// g + 8 of each 16, columns 2t and 2t + 1.
template <int Dim, bool Precise>
__device__ __forceinline__ void Project(float (&c)[kChunkRows / 16][4],
                                        const LongShared<Dim>& shared, const float* query,
                                        int column) {
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const float* from = query + 2 * t * Dim + column + g;
#pragma unroll 2
  for (int k = 0; k < Dim / 16; ++k) {
    uint32_t high[2], low[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float* at = from + (16 * k + 8 * half) * Dim;
      const float x = __ldg(at), y = __ldg(at + Dim);
      high[half] = PackHalves(x, y);
      if constexpr (Precise) {
        const float2 kept = __half22float2(HalfPair(high[half]));
        low[half] = PackHalves(x - kept.x, y - kept.y);
      }
    }
#pragma unroll
    for (int m = 0; m < kChunkRows / 16; ++m) {
      const int row = 16 * m + lane % 16, word = 8 * k + lane / 16 * 4;
      uint32_t a[4];
      ptx::LoadMatrices(a, ptx::SharedAddress(&shared.turned[0][row][word]));
      ptx::MmaM16N8K16(c[m], a, high[0], high[1]);
      if constexpr (Precise) {
        ptx::MmaM16N8K16(c[m], a, low[0], low[1]);
        ptx::LoadMatrices(a, ptx::SharedAddress(&shared.turned[1][row][word]));
        ptx::MmaM16N8K16(c[m], a, high[0], high[1]);
      }
    }
  }
}

// Two coordinates as the terms that a page's keys are multiplied with.
template <int Dim>
__device__ __forceinline__ void PutTerms(LongShared<Dim>* shared, int page, int head, int word,
                                         float x, float y) {
  uint32_t high, low;
  if (shared->pages[page].key_codec == PageCodec::kBf16) {
    high = PackBfloats(x, y);
    const float2 kept = UnpackBfloats(high);
    low = PackBfloats(x - kept.x, y - kept.y);
  } else {
    high = PackHalves(x, y);
    const float2 kept = __half22float2(HalfPair(high));
    low = PackHalves(x - kept.x, y - kept.y);
  }
  shared->terms[page][0][head][word] = high;
  shared->terms[page][1][head][word] = low;
}

// Turned queries become terms of coordinates; what a head adds to a page's scores.
template <int Dim>
__device__ void ProjectChunk(LongShared<Dim>* shared, const float* basis) {
  const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  bool precise = false;
#pragma unroll
  for (int i = 0; i < kChunk; ++i) {
    const LongPage& page = shared->pages[i];
    precise |= page.hidden < page.visible && !IsNarrow(page.key_codec);
  }
  const float* query = basis + BasisPartOffset(BasisPart::kQuery, Dim);
  const float* means = basis + BasisPartOffset(BasisPart::kMeanCoordinates, Dim);
  float sums[kChunkRows / 8] = {};
#pragma unroll 1
  for (int column = warp * 8; column < Dim; column += kLongWarps * 8) {
    float c[kChunkRows / 16][4] = {};
    if (precise) {
      Project<Dim, true>(c, *shared, query, column);
    } else {
      Project<Dim, false>(c, *shared, query, column);
    }
    const float2 mean =
        make_float2(__ldg(means + column + 2 * t), __ldg(means + column + 2 * t + 1));
#pragma unroll
    for (int page = 0; page < kChunk; ++page) {
      const float x = c[page / 2][page % 2 * 2], y = c[page / 2][page % 2 * 2 + 1];
      const int8_t* of_page = &shared->key_means[page][column + 2 * t];
      sums[page] = fmaf(x, fmaf(of_page[0], kMeanStep, mean.x), sums[page]);
      sums[page] = fmaf(y, fmaf(of_page[1], kMeanStep, mean.y), sums[page]);
      PutTerms<Dim>(shared, page, g, column / 2 + t, x, y);
    }
  }
#pragma unroll
  for (int page = 0; page < kChunk; ++page) {
    float sum = sums[page] + __shfl_xor_sync(~0u, sums[page], 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    if (t == 0) shared->parts[warp][page * kHeads + g] = sum;
  }
  __syncthreads();
  if (threadIdx.x < kChunkRows) {
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kLongWarps; ++w) sum += shared->parts[w][threadIdx.x];
    shared->constants[threadIdx.x / kHeads][threadIdx.x % kHeads] = sum;
  }
  __syncthreads();
}

// The same without a basis: the turned queries themselves.
template <int Dim>
__device__ void KeepChunk(LongShared<Dim>* shared) {
  for (int i = threadIdx.x; i < kChunkRows * Dim / 2; i += kLongThreads) {
    const int row = i / (Dim / 2), word = i % (Dim / 2);
    const float2 high = __half22float2(HalfPair(shared->turned[0][row][word]));
    const float2 low = __half22float2(HalfPair(shared->turned[1][row][word]));
    PutTerms<Dim>(shared, row / kHeads, row % kHeads, word, high.x + low.x, high.y + low.y);
  }
  if (threadIdx.x < kChunkRows) {
    shared->constants[threadIdx.x / kHeads][threadIdx.x % kHeads] = 0;
  }
  __syncthreads();
}

}  // namespace corpusd::cuda
