// kernels/cuda/page_fragment.cuh -- 16 tokens of a K or V tile as the A operand of the tensor core,
// for every codec of a page: levels as halves (cq formats, int8), or bfloat16. K: rows are tokens,
// columns dims; V: rows are dims, columns tokens. A warp reads together.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "kernels/coded_levels.h"
#include "kernels/coded_tile.h"
#include "kernels/cuda/level_fragment.h"
#include "kernels/cuda/page.h"

namespace corpusd::cuda {

__device__ __forceinline__ uint32_t HalfBits(__half2 pair) {
  return *reinterpret_cast<const uint32_t*>(&pair);
}
__device__ __forceinline__ __half2 HalfPair(uint32_t bits) {
  return *reinterpret_cast<const __half2*>(&bits);
}
__device__ __forceinline__ uint32_t PackHalves(float low, float high) {
  return HalfBits(__floats2half2_rn(low, high));
}
__device__ __forceinline__ uint32_t PackBfloats(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}
__device__ __forceinline__ float2 UnpackBfloats(uint32_t bits) {
  return make_float2(__uint_as_float(bits << 16), __uint_as_float(bits & 0xFFFF0000u));
}

// A lane's words of a group of 16 tokens that begins at `from`, in shared memory. Tile: a
// CodedTile.
template <class Tile>
__device__ __forceinline__ void ReadGroupWords(uint32_t (&words)[Tile::kWords], const uint8_t* from,
                                               int lane) {
  constexpr int kWhole = Tile::kWords / 4 * 4;
#pragma unroll
  for (int w = 0; w < kWhole; w += 4) {
    const auto v = *reinterpret_cast<const uint4*>(from + Tile::WordOffset(w, lane));
    words[w] = v.x, words[w + 1] = v.y, words[w + 2] = v.z, words[w + 3] = v.w;
  }
  if constexpr (Tile::kWords % 4 >= 2) {
    const auto v = *reinterpret_cast<const uint2*>(from + Tile::WordOffset(kWhole, lane));
    words[kWhole] = v.x, words[kWhole + 1] = v.y;
  }
  if constexpr (Tile::kWords % 2 == 1) {
    constexpr int kLast = Tile::kWords - 1;
    words[kLast] = *reinterpret_cast<const uint32_t*>(from + Tile::WordOffset(kLast, lane));
  }
}

constexpr bool IsCodedPage(PageCodec codec) { return static_cast<int>(codec) <= 8; }

// A group of 16 tokens of a tile in one of the codecs.
template <PageCodec Codec, int Dim, bool IsKey>
struct PageGroup {
  static constexpr int kBits = static_cast<int>(Codec);
  static constexpr bool kCoded = IsCodedPage(Codec);
  static constexpr bool kBfloat = Codec == PageCodec::kBf16;
  using Layout = CodedTile<kCoded ? kBits : 8, Dim>;
  uint32_t words[Layout::kWords];
  const uint8_t* tile;
  int group;

  __device__ __forceinline__ void Load(const uint8_t* at, int which) {
    tile = at;
    group = which;
    if constexpr (kCoded) {
      const uint8_t* from = tile + group * Layout::kGroupBytes;
      const int lane = threadIdx.x % 32;
      constexpr int kWhole = Layout::kWords / 4 * 4;
#pragma unroll
      for (int w = 0; w < kWhole; w += 4) {
        const auto v = __ldg(reinterpret_cast<const uint4*>(from + Layout::WordOffset(w, lane)));
        words[w] = v.x, words[w + 1] = v.y, words[w + 2] = v.z, words[w + 3] = v.w;
      }
#pragma unroll
      for (int w = kWhole; w < Layout::kWords; ++w) {
        words[w] = __ldg(reinterpret_cast<const uint32_t*>(from + Layout::WordOffset(w, lane)));
      }
    }
  }

  // The registers of fragment f.
  __device__ __forceinline__ void Fragment(int f, uint32_t (&a)[4]) const {
    if constexpr (kCoded) {
      UnpackLevels<kBits>(words, f, a);
#pragma unroll
      for (int r = 0; r < 4; ++r) a[r] = HalfBits(__hsub2(HalfPair(a[r]), HalfPair(kLevelBias)));
    } else {
      const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const int row = g + 8 * (r & 1), column = 2 * t + 8 * (r >> 1);
        const int token = 16 * group + (IsKey ? row : column);
        const int dim = 16 * f + (IsKey ? column : row);
        a[r] = Plain(token, dim);
      }
    }
  }

  // What a level of the token counts.
  __device__ __forceinline__ float Scale(int token) const {
    if constexpr (kCoded) {
      const uint32_t byte = __ldg(tile + Layout::ScaleOffset(token));
      return __uint_as_float(ScaleBits(byte)) * (1.0f / LevelUnit(kBits));
    } else if constexpr (kBfloat) {
      return 1.0f;
    } else {
      return __ldg(reinterpret_cast<const float*>(tile + kTileTokens * Dim) + token);
    }
  }
  // The block's mean of a dim.
  __device__ __forceinline__ float Mean(int dim) const {
    if constexpr (!kCoded) return 0;
    const auto byte = static_cast<int8_t>(__ldg(tile + Layout::kCodeBytes + kTileTokens + dim));
    return static_cast<float>(byte) * kMeanStep;
  }

 private:
  // Numbers (token, dim) and, of K, dim + 1, of V, token + 1.
  __device__ __forceinline__ uint32_t Plain(int token, int dim) const {
    if constexpr (kBfloat) {
      const int word = IsKey ? dim / 2 * kTileTokens + token : token / 2 * Dim + dim;
      return __ldg(reinterpret_cast<const uint32_t*>(tile) + word);
    } else {
      const int at = IsKey ? (dim / 4 * kTileTokens + token) * 4 + dim % 4
                           : (token / 4 * Dim + dim) * 4 + token % 4;
      const uint32_t pair = __ldg(reinterpret_cast<const uint16_t*>(tile + at));
      return PackHalves(static_cast<float>(static_cast<int8_t>(pair & 0xFF)),
                        static_cast<float>(static_cast<int8_t>(pair >> 8)));
    }
  }
};

// Calls body with an integral constant of the page's codec.
template <PageCodec Codec>
struct CodecConstant {
  static constexpr PageCodec value = Codec;
};
template <class Body>
__device__ __forceinline__ void WithCodec(PageCodec codec, const Body& body) {
  switch (codec) {
    case PageCodec::kCq2:
      return body(CodecConstant<PageCodec::kCq2>{});
    case PageCodec::kCq3:
      return body(CodecConstant<PageCodec::kCq3>{});
    case PageCodec::kCq4:
      return body(CodecConstant<PageCodec::kCq4>{});
    case PageCodec::kCq8:
      return body(CodecConstant<PageCodec::kCq8>{});
    case PageCodec::kInt8:
      return body(CodecConstant<PageCodec::kInt8>{});
    case PageCodec::kBf16:
      return body(CodecConstant<PageCodec::kBf16>{});
  }
}

__device__ __forceinline__ const uint8_t* KeyTile(const DevicePage& page, uint32_t layer,
                                                  uint32_t head) {
  return page.bytes + static_cast<size_t>(layer) * page.layer_bytes +
         static_cast<size_t>(head) * page.key_tile_bytes;
}
__device__ __forceinline__ const uint8_t* ValueTile(const DevicePage& page, uint32_t layer,
                                                    uint32_t head, uint32_t kv_heads) {
  return page.bytes + static_cast<size_t>(layer) * page.layer_bytes +
         static_cast<size_t>(kv_heads) * page.key_tile_bytes +
         static_cast<size_t>(head) * page.value_tile_bytes;
}
// The end of the slots that a query at this position may see.
__device__ __forceinline__ int VisibleEnd(const DevicePage& page, int64_t position) {
  const int64_t until = position - page.first_position + 1;
  return static_cast<int>(until < 0 ? 0 : until > page.tokens ? page.tokens : until);
}

}  // namespace corpusd::cuda
