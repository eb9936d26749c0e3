// ExpandPages: the tiles of a layer as plain bfloat16 keys and values, in the order in which the
// tensor core reads them (ExpandedOffset). Pages in coordinates: a block takes several of one KV
// head, keys or values, with the basis' inverse in shared memory, 64 tokens at a time.
//
// 128 threads, up to 33 KB of shared memory.
#include <cuda_runtime.h>

#include <algorithm>

#include "kernels/cuda/page_fragment.cuh"
#include "kernels/cuda/prefill_attention.h"
#include "kernels/cuda/ptx/async_copy.cuh"
#include "kernels/cuda/ptx/tensor_core.cuh"
#include "kernels/cuda/ptx/warpgroup.cuh"

namespace corpusd::cuda {
namespace {

constexpr int kWarps = 4, kThreads = 32 * kWarps;
constexpr int kBlocksTogether = 3;  // on a multiprocessor, of pages in coordinates
constexpr uint32_t kBlocksWanted = 132 * kBlocksTogether;  // more pages: more for each block
constexpr int kChunkBytes = 128;                           // 64 coordinates of a column

// The basis' inverse as the tensor core takes it out of shared memory, halves: [coordinates / 64]
// [columns][64 coordinates], as SharedOperand says. Columns are dims in an order of their own:
// column 8 j + c of 32 is dim 8 (c / 2) + 2 j + c % 2, so that a thread has eight neighbouring dims
// of a token.
template <int Dim>
struct ExpandShared {
  alignas(1024) uint8_t inverse[Dim / 64][Dim * kChunkBytes];
  float mean[Dim];
};

template <int Dim>
__device__ void StageBasis(ExpandShared<Dim>* shared, const float* basis) {
  const float* inverse = basis + BasisPartOffset(BasisPart::kInverse, Dim);
#pragma unroll 4
  for (int i = threadIdx.x; i < Dim / 2 * Dim; i += kThreads) {
    const int dim = i % Dim, first = i / Dim * 2;
    const int column = dim / 32 * 32 + dim % 8 / 2 * 8 + dim % 32 / 8 * 2 + dim % 2;
    uint8_t* to = shared->inverse[first / 64] + column * kChunkBytes +
                  ((first % 64 / 8) ^ (column % 8)) * 16 + first % 8 * 2;
    *reinterpret_cast<uint32_t*>(to) =
        PackHalves(__ldg(inverse + first * Dim + dim), __ldg(inverse + (first + 1) * Dim + dim));
  }
  for (int dim = threadIdx.x; dim < Dim; dim += kThreads) {
    shared->mean[dim] = basis[BasisPartOffset(BasisPart::kMean, Dim) + dim];
  }
  ptx::FenceShared();
  __syncthreads();
}

// Eight numbers of a token, from dim `first` on, turned and stored.
__device__ __forceinline__ void StoreEight(uint8_t* to, int token, int first, float (&x)[8],
                                           const float* turn, uint32_t turned) {
#pragma unroll
  for (int i = 0; i < 8; i += 2) {
    if (first + i >= turned) break;
    const float2 by = __ldg(reinterpret_cast<const float2*>(turn + first + i));
    const float x0 = x[i];
    x[i] = x0 * by.x - x[i + 1] * by.y;
    x[i + 1] = x[i + 1] * by.x + x0 * by.y;
  }
  *reinterpret_cast<uint4*>(to + ExpandedOffset(token, first)) =
      make_uint4(PackBfloats(x[0], x[1]), PackBfloats(x[2], x[3]), PackBfloats(x[4], x[5]),
                 PackBfloats(x[6], x[7]));
}

// 16 tokens of a tile in coordinates, four fragments (64 coordinates) at a time, as halves.
template <PageCodec Codec, int Dim, bool IsKey>
struct Coordinates {
  using Group = PageGroup<Codec, Dim, IsKey>;
  static constexpr int kBits = static_cast<int>(Codec);
  static constexpr int kWords = Group::kCoded ? kBits : 1;  // of a lane and four fragments
  Group group;
  uint32_t words[kWords];
  uint32_t scales[2];  // keys: of tokens g, g + 8; values: of 2t and 2t + 8 and those behind them

  __device__ __forceinline__ void Begin(const uint8_t* tile, int which) {
    group.tile = tile;
    group.group = which;
    if constexpr (Group::kCoded) {
      const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, first = which * kGroupTokens;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int token = first + 8 * i + (IsKey ? g : 2 * t);
        scales[i] = PackHalves(group.Scale(token), group.Scale(IsKey ? token : token + 1));
      }
    }
  }
  __device__ __forceinline__ void LoadFour(int four) {
    if constexpr (Group::kCoded) {
      using Layout = CodedTile<kBits, Dim>;
      const uint8_t* from = group.tile + group.group * Layout::kGroupBytes;
      constexpr int kTogether = kWords % 4 == 0 ? 4 : kWords % 2 == 0 ? 2 : 1;
#pragma unroll
      for (int w = 0; w < kWords; w += kTogether) {
        const uint8_t* at = from + Layout::WordOffset(four * kWords + w, threadIdx.x % 32);
        if constexpr (kTogether == 4) {
          const auto v = __ldg(reinterpret_cast<const uint4*>(at));
          words[w] = v.x, words[w + 1] = v.y, words[w + 2] = v.z, words[w + 3] = v.w;
        } else if constexpr (kTogether == 2) {
          const auto v = __ldg(reinterpret_cast<const uint2*>(at));
          words[w] = v.x, words[w + 1] = v.y;
        } else {
          words[w] = __ldg(reinterpret_cast<const uint32_t*>(at));
        }
      }
    }
  }
  // Means for fragment f of the tile: keys: of the columns, values: of the rows.
  __device__ __forceinline__ void Means(int f, uint32_t (&means)[2]) const {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int dim = 16 * f + 8 * i + (IsKey ? 2 * t : g);
      means[i] = PackHalves(group.Mean(dim), group.Mean(IsKey ? dim + 1 : dim));
    }
  }
  // The A operand [tokens, coordinates] of fragment f of the four in hand.
  __device__ __forceinline__ void Fragment(int four, int f, const uint32_t (&means)[2],
                                           uint32_t (&a)[4]) const {
    uint32_t read[4];
    if constexpr (Group::kCoded) {
      UnpackLevels<kBits>(words, f, read);
    } else {
      group.Fragment(4 * four + f, read);
    }
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      if constexpr (Group::kCoded) {
        const int by_scale = IsKey ? r % 2 : r / 2, by_mean = IsKey ? r / 2 : r % 2;
        read[r] = HalfBits(__hfma2(__hsub2(HalfPair(read[r]), HalfPair(kLevelBias)),
                                   HalfPair(scales[by_scale]), HalfPair(means[by_mean])));
      } else {
        const float2 pair = UnpackBfloats(read[r]);
        read[r] = PackHalves(pair.x, pair.y);
      }
      if constexpr (!IsKey) read[r] = ptx::TransposeHalves(read[r]);
    }
    a[0] = read[0];
    a[1] = IsKey ? read[1] : read[2];
    a[2] = IsKey ? read[2] : read[1];
    a[3] = read[3];
  }
};

// A tile in coordinates: x = y * inverse + mean, keys turned. The four warps multiply 64 tokens
// together, a group of 16 each.
template <PageCodec Codec, int Dim, bool IsKey>
__device__ __forceinline__ void ExpandCoordinates(uint8_t* to, const uint8_t* tile,
                                                  const float* turn, uint32_t turned,
                                                  const ExpandShared<Dim>& shared) {
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll 1
  for (int which = threadIdx.x / 32; which < kGroups; which += kWarps) {
    Coordinates<Codec, Dim, IsKey> group;
    group.Begin(tile, which);
    uint32_t a[Dim / 16][4];
#pragma unroll
    for (int four = 0; four < Dim / 64; ++four) {
      group.LoadFour(four);
#pragma unroll
      for (int f = 0; f < 4; ++f) {
        uint32_t means[2];
        group.Means(4 * four + f, means);
        group.Fragment(four, f, means, a[4 * four + f]);
      }
    }
    float c[Dim / 2];
#pragma unroll
    for (int n = 0; n < Dim / 8; ++n) {
      const auto mean =
          *reinterpret_cast<const float2*>(&shared.mean[n / 4 * 32 + 8 * t + n % 4 * 2]);
      c[4 * n] = c[4 * n + 2] = mean.x;
      c[4 * n + 1] = c[4 * n + 3] = mean.y;
    }
    ptx::KeepOrder(c);
    ptx::FenceProducts();
#pragma unroll
    for (int f = 0; f < Dim / 16; ++f) {
      const uint64_t b = ptx::SharedOperand(ptx::SharedAddress(shared.inverse[f / 4]), 16);
      ptx::MultiplyHalvesTransposed(c, a[f], b + f % 4 * (32 / 16));
    }
    ptx::CommitProducts();
    ptx::WaitProducts<0>();
    ptx::KeepOrder(c);
#pragma unroll
    for (int q = 0; q < Dim / 32; ++q) {
#pragma unroll
      for (int row = 0; row < 2; ++row) {
        float x[8];
#pragma unroll
        for (int k = 0; k < 8; ++k) x[k] = c[4 * (4 * q + k / 2) + 2 * row + k % 2];
        StoreEight(to, which * kGroupTokens + g + 8 * row, 32 * q + 8 * t, x, turn,
                   IsKey ? turned : 0);
      }
    }
  }
}

// A tile of plain bfloat16 keys, [Dim / 2][128][2]: a thread takes eight dims of four tokens.
template <int Dim>
__device__ __forceinline__ void ExpandPlainKeys(uint8_t* to, const uint8_t* tile, const float* turn,
                                                uint32_t turned) {
  const int lane = threadIdx.x % 32, four = threadIdx.x / 32 * 8 + lane % 8;
#pragma unroll 2
  for (int q = lane / 8; q < Dim / 8; q += 4) {
    uint32_t words[4][4];
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const auto v =
          __ldg(reinterpret_cast<const uint4*>(tile) + (4 * q + k) * (kTileTokens / 4) + four);
      words[k][0] = v.x, words[k][1] = v.y, words[k][2] = v.z, words[k][3] = v.w;
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      float x[8];
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const float2 pair = UnpackBfloats(words[k][j]);
        x[2 * k] = pair.x, x[2 * k + 1] = pair.y;
      }
      StoreEight(to, 4 * four + j, 8 * q, x, turn, turned);
    }
  }
}

// A tile of plain bfloat16 values, [64][Dim][2]: a thread takes eight dims of two tokens.
template <int Dim>
__device__ __forceinline__ void ExpandPlainValues(uint8_t* to, const uint8_t* tile) {
#pragma unroll 4
  for (int i = threadIdx.x; i < kTileTokens / 2 * Dim / 8; i += kThreads) {
    const int token = i / (Dim / 8) * 2, first = i % (Dim / 8) * 8;
    const auto* from = reinterpret_cast<const uint4*>(tile) + 2 * i;
    const uint4 a = __ldg(from), b = __ldg(from + 1);
    constexpr uint32_t kEven = 0x5410, kOdd = 0x7632;
    *reinterpret_cast<uint4*>(to + ExpandedOffset(token, first)) =
        make_uint4(PermuteBytes(a.x, a.y, kEven), PermuteBytes(a.z, a.w, kEven),
                   PermuteBytes(b.x, b.y, kEven), PermuteBytes(b.z, b.w, kEven));
    *reinterpret_cast<uint4*>(to + ExpandedOffset(token + 1, first)) =
        make_uint4(PermuteBytes(a.x, a.y, kOdd), PermuteBytes(a.z, a.w, kOdd),
                   PermuteBytes(b.x, b.y, kOdd), PermuteBytes(b.z, b.w, kOdd));
  }
}

// A tile of int8 numbers: a thread takes a token.
template <int Dim, bool IsKey>
__device__ __forceinline__ void ExpandBytes(uint8_t* to, const uint8_t* tile, const float* turn,
                                            uint32_t turned) {
  const int token = threadIdx.x;
  const float scale = reinterpret_cast<const float*>(tile + kTileTokens * Dim)[token];
#pragma unroll 1
  for (int first = 0; first < Dim; first += 8) {
    float x[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int dim = first + i;
      const int at = IsKey ? (dim / 4 * kTileTokens + token) * 4 + dim % 4
                           : (token / 4 * Dim + dim) * 4 + token % 4;
      x[i] = static_cast<float>(reinterpret_cast<const int8_t*>(tile)[at]) * scale;
    }
    StoreEight(to, token, first, x, turn, IsKey ? turned : 0);
  }
}

// Calls body(page's bytes of the expanded tile, tile, turn, floats turned) for the block's pages.
template <int Dim, bool IsKey, class Body>
__device__ __forceinline__ void ForPages(const ExpandCall& call, uint32_t pages_of_block,
                                         const Body& body) {
  const uint32_t first = blockIdx.x * pages_of_block, head = blockIdx.y;
  const uint32_t end = min(first + pages_of_block, call.count);
  const uint32_t turned = call.rope.cos_sin == nullptr ? 0 : 2 * call.rope.half_dim;
#pragma unroll 1
  for (uint32_t i = first; i < end; ++i) {
    const DevicePage page = call.pages[i];
    auto* to = reinterpret_cast<uint8_t*>(IsKey ? call.keys : call.values) +
               (static_cast<size_t>(head) * call.count + i) * (kTileTokens * Dim * 2);
    const uint8_t* tile =
        IsKey ? KeyTile(page, call.layer, head) : ValueTile(page, call.layer, head, call.kv_heads);
    const float* turn = call.rope.cos_sin + (page.first_position - call.frame) * turned;
    body(IsKey ? page.key_codec : page.value_codec, to, tile, turn, turned);
  }
}

template <int Dim, bool IsKey>
__device__ __forceinline__ void ExpandSide(const ExpandCall& call, uint32_t pages_of_block) {
  extern __shared__ __align__(1024) uint8_t memory[];
  auto& shared = *reinterpret_cast<ExpandShared<Dim>*>(memory);
  StageBasis<Dim>(&shared,
                  call.basis.arrays + (2 * blockIdx.y + (IsKey ? 0 : 1)) * BasisSideFloats(Dim));
  ForPages<Dim, IsKey>(
      call, pages_of_block,
      [&](PageCodec codec, uint8_t* to, const uint8_t* tile, const float* turn, uint32_t turned) {
        WithCodec(codec, [&](auto constant) {
          constexpr PageCodec kCodec = decltype(constant)::value;
          if constexpr (kCodec != PageCodec::kInt8) {
            ExpandCoordinates<kCodec, Dim, IsKey>(to, tile, turn, turned, shared);
          }
        });
      });
}

template <int Dim, bool IsKey>
__device__ __forceinline__ void ExpandPlainSide(const ExpandCall& call) {
  ForPages<Dim, IsKey>(
      call, 1,
      [](PageCodec codec, uint8_t* to, const uint8_t* tile, const float* turn, uint32_t turned) {
        if (codec == PageCodec::kInt8) {
          ExpandBytes<Dim, IsKey>(to, tile, turn, turned);
        } else if constexpr (IsKey) {
          ExpandPlainKeys<Dim>(to, tile, turn, turned);
        } else {
          ExpandPlainValues<Dim>(to, tile);
        }
      });
}

// Pages in coordinates. Block (pages, KV head, keys or values).
template <int Dim>
__global__ void __launch_bounds__(kThreads, kBlocksTogether)
    ExpandKernel(const __grid_constant__ ExpandCall call, uint32_t pages_of_block) {
  if (blockIdx.z == 0) {
    ExpandSide<Dim, true>(call, pages_of_block);
  } else {
    ExpandSide<Dim, false>(call, pages_of_block);
  }
}

// Plain pages. Block (page, KV head, keys or values).
template <int Dim>
__global__ void __launch_bounds__(kThreads, 6)
    ExpandPlainKernel(const __grid_constant__ ExpandCall call) {
  if (blockIdx.z == 0) {
    ExpandPlainSide<Dim, true>(call);
  } else {
    ExpandPlainSide<Dim, false>(call);
  }
}

template <int Dim>
int Launch(const ExpandCall& call, CUstream_st* stream) {
  if (call.basis.arrays == nullptr) {
    ExpandPlainKernel<Dim><<<dim3(call.count, call.kv_heads, 2), kThreads, 0, stream>>>(call);
    return cudaGetLastError();
  }
  constexpr int kBytes = sizeof(ExpandShared<Dim>);
  const uint32_t blocks = std::max(1u, kBlocksWanted / (2 * call.kv_heads));  // of a side and head
  const uint32_t each = (call.count + blocks - 1) / blocks;
  const dim3 grid((call.count + each - 1) / each, call.kv_heads, 2);
  ExpandKernel<Dim><<<grid, kThreads, kBytes, stream>>>(call, each);
  return cudaGetLastError();
}

}  // namespace

int ExpandPages(const ExpandCall& call, CUstream_st* stream) {
  if (call.head_dim == 64) return Launch<64>(call, stream);
  if (call.head_dim == 128) return Launch<128>(call, stream);
  return cudaErrorInvalidValue;
}

}  // namespace corpusd::cuda
