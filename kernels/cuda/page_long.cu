// AttendLongParts: a block takes a long stretch of one row's pages for one KV head, those that
// page_coded.cu leaves, eight pages at a time. Their queries, turned into each page's frame, go
// through the basis as one product of the tensor core; then every warp takes a group of 16 tokens
// of each page. What the means of a block add to the values is a product of rank one, for eight
// pages at once. Queries and weights over 2 to 4 bits are one half term each: a code's own error is
// a hundred times theirs; over plain pages two, as in page_part.cuh.
//
// 256 threads, at most 128 registers, 79 KB of shared memory: two blocks a multiprocessor.
#include <cuda_runtime.h>

#include "kernels/cuda/page_chunk.cuh"

namespace corpusd::cuda {
namespace {

// A score may pass the running maximum by so many octaves before everything is rescaled: halves
// hold 2^(6 + 3), the largest scale included.
constexpr float kSlack = 6.0f;

// A warp's softmax over its groups. Lane 4g + t has heads 2t, 2t + 1; scores of tokens g, g + 8;
// value sums of dims g, g + 8 of each fragment.
template <int Dim>
struct LongState {
  static constexpr int kFragments = Dim / 16;
  float top[2] = {kNoScore, kNoScore}, sum[2] = {};  // sum: the lane's
  float output[kFragments][4] = {};
  float mass[2] = {};  // of page g of the chunk

  template <PageCodec Codec>
  __device__ __forceinline__ void Scores(float (&score)[4], const PageGroup<Codec, Dim, true>& keys,
                                         const LongShared<Dim>& shared, int page);
  __device__ __forceinline__ void Weigh(float (&score)[4], int page);
  template <PageCodec Codec>
  __device__ __forceinline__ void AddValues(const PageGroup<Codec, Dim, false>& values,
                                            const float (&score)[4]);
  __device__ __forceinline__ void AddMeans(const LongShared<Dim>& shared);
  __device__ __forceinline__ void Merge(LongShared<Dim>* shared) const;
};

template <int Dim>
template <PageCodec Codec>
__device__ __forceinline__ void LongState<Dim>::Scores(float (&score)[4],
                                                       const PageGroup<Codec, Dim, true>& keys,
                                                       const LongShared<Dim>& shared, int page) {
  using Group = PageGroup<Codec, Dim, true>;
  const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  float even[4] = {}, odd[4] = {};  // two chains of dependent products instead of one
#pragma unroll
  for (int f = 0; f < kFragments; ++f) {
    uint32_t a[4];
    keys.Fragment(f, a);
#pragma unroll
    for (int term = 0; term < TermsOf(Codec); ++term) {
      const uint32_t* b = shared.terms[page][term][g] + 8 * f + t;
      Multiply<Group::kBfloat>(f % 2 == 0 ? even : odd, a, b[0], b[4]);
    }
  }
  const LongPage& seen = shared.pages[page];
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    const int slot = warp * kGroupTokens + g + 8 * row;
    const float scale = keys.Scale(slot);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int i = 2 * row + h;
      score[i] = slot >= seen.hidden && slot < seen.visible
                     ? fmaf(even[i] + odd[i], scale, shared.constants[page][2 * t + h])
                     : kNoScore;
    }
  }
}

// Scores become weights against the running maximum.
template <int Dim>
__device__ __forceinline__ void LongState<Dim>::Weigh(float (&score)[4], int page) {
  const bool high =
      fmaxf(score[0], score[2]) > top[0] + kSlack || fmaxf(score[1], score[3]) > top[1] + kSlack;
  if (__any_sync(~0u, high)) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float highest = fmaxf(top[h], fmaxf(score[h], score[2 + h]));
      for (int i = 4; i < 32; i *= 2) highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, i));
      const float factor = ptx::Exp2(top[h] - highest);
      top[h] = highest;
      sum[h] *= factor;
      mass[h] *= factor;
#pragma unroll
      for (int f = 0; f < kFragments; ++f) output[f][h] *= factor, output[f][2 + h] *= factor;
    }
  }
  const int g = threadIdx.x % 32 / 4;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      float& x = score[2 * row + h];
      x = x == kNoScore ? 0.0f : ptx::Exp2(x - top[h]);
    }
    float of_page = score[h] + score[2 + h];
    sum[h] += of_page;
    for (int i = 4; i < 32; i *= 2) of_page += __shfl_xor_sync(~0u, of_page, i);
    if (g == page) mass[h] = of_page;
  }
}

template <int Dim>
template <PageCodec Codec>
__device__ __forceinline__ void LongState<Dim>::AddValues(
    const PageGroup<Codec, Dim, false>& values, const float (&score)[4]) {
  using Group = PageGroup<Codec, Dim, false>;
  const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4;
  uint32_t b[2][2];  // [term][tokens 0-7, 8-15]
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    const float scale = values.Scale(warp * kGroupTokens + g + 8 * row);
    const float x = score[2 * row] * scale, y = score[2 * row + 1] * scale;
    uint32_t high, low;
    if constexpr (Group::kBfloat) {
      high = PackBfloats(x, y);
      const float2 kept = UnpackBfloats(high);
      low = PackBfloats(x - kept.x, y - kept.y);
    } else {
      high = PackHalves(x, y);
      const float2 kept = __half22float2(HalfPair(high));
      low = PackHalves(x - kept.x, y - kept.y);
    }
    b[0][row] = ptx::TransposeHalves(high);
    if constexpr (TermsOf(Codec) == 2) b[1][row] = ptx::TransposeHalves(low);
  }
#pragma unroll
  for (int f = 0; f < kFragments; ++f) {
    uint32_t a[4];
    values.Fragment(f, a);
#pragma unroll
    for (int term = 0; term < TermsOf(Codec); ++term) {
      Multiply<Group::kBfloat>(output[f], a, b[term][0], b[term][1]);
    }
  }
}

// The masses of the chunk's pages times the means of their blocks: pages are the columns of A.
template <int Dim>
__device__ __forceinline__ void LongState<Dim>::AddMeans(const LongShared<Dim>& shared) {
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  const uint32_t high = PackHalves(mass[0], mass[1]);
  const float2 kept = __half22float2(HalfPair(high));
  const uint32_t b[2] = {ptx::TransposeHalves(high),
                         ptx::TransposeHalves(PackHalves(mass[0] - kept.x, mass[1] - kept.y))};
#pragma unroll
  for (int f = 0; f < kFragments; ++f) {
    uint32_t a[4] = {};
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      const int dim = 16 * f + g + 8 * row;
      a[row] = PackHalves(static_cast<float>(shared.value_means[2 * t][dim]) * kMeanStep,
                          static_cast<float>(shared.value_means[2 * t + 1][dim]) * kMeanStep);
    }
    ptx::MmaM16N8K16(output[f], a, b[0], 0);
    ptx::MmaM16N8K16(output[f], a, b[1], 0);
  }
  mass[0] = mass[1] = 0;
}

template <int Dim>
__device__ __forceinline__ void LongState<Dim>::Merge(LongShared<Dim>* shared) const {
  const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float all = sum[h];
    for (int i = 4; i < 32; i *= 2) all += __shfl_xor_sync(~0u, all, i);
    if (g == 0) {
      shared->maxima[warp][2 * t + h] = top[h];
      shared->sums[warp][2 * t + h] = all;
    }
#pragma unroll
    for (int f = 0; f < kFragments; ++f) {
      shared->outputs[warp][2 * t + h][16 * f + g] = output[f][h];
      shared->outputs[warp][2 * t + h][16 * f + g + 8] = output[f][2 + h];
    }
  }
  __syncthreads();
}

// A warp's group of one page.
template <int Dim>
__device__ __forceinline__ void AttendPage(LongState<Dim>* state, const LongShared<Dim>& shared,
                                           int at) {
  const LongPage& page = shared.pages[at];
  const int warp = threadIdx.x / 32;
  float score[4];
  WithCodec(page.key_codec, [&](auto constant) {
    constexpr PageCodec kCodec = decltype(constant)::value;
    PageGroup<kCodec, Dim, true> keys;
    keys.Load(page.keys, warp);
    state->template Scores<kCodec>(score, keys, shared, at);
  });
  state->Weigh(score, at);
  WithCodec(page.value_codec, [&](auto constant) {
    constexpr PageCodec kCodec = decltype(constant)::value;
    PageGroup<kCodec, Dim, false> values;
    values.Load(page.values, warp);
    state->template AddValues<kCodec>(values, score);
  });
}

// Block (part, KV head and eight of its query heads, row).
template <int Dim>
__global__ void __launch_bounds__(kLongThreads, 2)
    LongKernel(const __grid_constant__ PageAttention call) {
  extern __shared__ __align__(16) uint8_t memory[];
  auto& shared = *reinterpret_cast<LongShared<Dim>*>(memory);
  const float* basis = nullptr;
  {
    const LongPart part(call);
    if (!part.any()) return;
    BeginPart<Dim>(&shared, call, part);
    const float* q = part.Queries(call);
    for (int i = threadIdx.x; i < kHeads * Dim; i += kLongThreads) {
      shared.queries[i / Dim][i % Dim] = i < part.heads * Dim ? q[i] * (call.scale * kLog2E) : 0.0f;
    }
    if (call.basis.arrays != nullptr) {
      basis = call.basis.arrays + 2 * part.kv_head * BasisSideFloats(Dim);
    }
  }
  LongState<Dim> state;
  for (uint32_t at = shared.from; at < shared.until; at += kChunk) {
    __syncthreads();  // the last chunk's terms are done with
    DescribePages<Dim>(&shared, call, at);
    TurnChunk<Dim>(&shared, call.rope);
    if (basis != nullptr) {
      ProjectChunk<Dim>(&shared, basis);
    } else {
      KeepChunk<Dim>(&shared);
    }
    for (int i = 0; i < kChunk; ++i) {
      if (shared.pages[i].hidden < shared.pages[i].visible) AttendPage<Dim>(&state, shared, i);
    }
    state.AddMeans(shared);
  }
  __syncthreads();  // outputs lie where the terms were
  state.Merge(&shared);
  for (int h = 0; h < shared.part.heads; ++h) {
    StorePart<Dim, kLongWarps>(shared.part.State(call, kOtherPages, h), shared, h);
  }
}

template <int Dim>
int Launch(const PageAttention& call, CUstream_st* stream) {
  constexpr int kBytes = sizeof(LongShared<Dim>);
  if (const cudaError_t error = cudaFuncSetAttribute(
          LongKernel<Dim>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes)) {
    return error;
  }
  const dim3 grid(LongPartsMax(call.kv_blocks()), call.kv_blocks(), call.q.rows);
  LongKernel<Dim><<<grid, kLongThreads, kBytes, stream>>>(call);
  return cudaGetLastError();
}

}  // namespace

int AttendLongParts(const PageAttention& call, CUstream_st* stream) {
  if ((call.kinds >> kOtherPages & 1) == 0) return cudaSuccess;
  if (call.head_dim == 64) return Launch<64>(call, stream);
  if (call.head_dim == 128) return Launch<128>(call, stream);
  return cudaErrorInvalidValue;
}

}  // namespace corpusd::cuda
