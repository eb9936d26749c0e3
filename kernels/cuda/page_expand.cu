// ExpandPages: the tiles of a layer as plain bfloat16 keys and values.
#include <cuda_runtime.h>

#include "kernels/cuda/page_fragment.cuh"
#include "kernels/cuda/prefill_attention.h"
#include "kernels/cuda/ptx/tensor_core.cuh"

namespace corpusd::cuda {
namespace {

constexpr int kWarps = 4;

// The inverse of a basis as the B operand, two half terms: word [term][pair of coordinates][dim].
// Rows are 8 words longer, so that a warp's words lie in 32 banks.
template <int Dim>
struct ExpandShared {
  uint32_t inverse[2][Dim / 2][Dim + 8];
  float constants[Dim];  // what all tokens have: mean + block mean * inverse
};

template <int Dim, class Group>
__device__ void StageBasis(ExpandShared<Dim>* shared, const float* basis, const Group& group) {
  const float* inverse = basis + BasisPartOffset(BasisPart::kInverse, Dim);
  for (int i = threadIdx.x; i < Dim / 2 * Dim; i += kWarps * 32) {
    const int pair = i / Dim, dim = i % Dim;
    const float a = inverse[2 * pair * Dim + dim], b = inverse[(2 * pair + 1) * Dim + dim];
    const uint32_t high = PackHalves(a, b);
    const float2 kept = __half22float2(HalfPair(high));
    shared->inverse[0][pair][dim] = high;
    shared->inverse[1][pair][dim] = PackHalves(a - kept.x, b - kept.y);
  }
  for (int dim = threadIdx.x; dim < Dim; dim += kWarps * 32) {
    float sum = basis[BasisPartOffset(BasisPart::kMean, Dim) + dim];
    if constexpr (Group::kCoded) {
#pragma unroll 8
      for (int j = 0; j < Dim; ++j) sum = fmaf(group.Mean(j), inverse[j * Dim + dim], sum);
    }
    shared->constants[dim] = sum;
  }
  __syncthreads();
}

// The A operand [tokens, coordinates] of fragment f, as halves.
template <class Group, bool IsKey>
__device__ __forceinline__ void TokenFragment(const Group& group, int f, uint32_t (&a)[4]) {
  uint32_t read[4];
  group.Fragment(f, read);
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    if constexpr (Group::kBfloat) {
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

// A tile in coordinates: x = y * inverse + mean, keys turned. to: [128][Dim].
template <PageCodec Codec, int Dim, bool IsKey>
__device__ void ExpandCoordinates(uint16_t* to, const uint8_t* tile, const float* basis,
                                  const float* turn, uint32_t turned, ExpandShared<Dim>* shared) {
  using Group = PageGroup<Codec, Dim, IsKey>;
  Group group;
  group.Load(tile, 0);
  StageBasis<Dim>(shared, basis, group);
  const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  for (int which = warp; which < kGroups; which += kWarps) {
    group.Load(tile, which);
    float c[Dim / 8][4] = {};
#pragma unroll
    for (int f = 0; f < Dim / 16; ++f) {
      uint32_t a[4];
      TokenFragment<Group, IsKey>(group, f, a);
#pragma unroll
      for (int n = 0; n < Dim / 8; ++n) {
#pragma unroll
        for (int term = 0; term < 2; ++term) {
          ptx::MmaM16N8K16(c[n], a, shared->inverse[term][8 * f + t][8 * n + g],
                           shared->inverse[term][8 * f + t + 4][8 * n + g]);
        }
      }
    }
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      const int token = which * kGroupTokens + g + 8 * row;
      const float scale = group.Scale(token);
#pragma unroll
      for (int n = 0; n < Dim / 8; ++n) {
        const int dim = 8 * n + 2 * t;
        float x = fmaf(c[n][2 * row], scale, shared->constants[dim]);
        float y = fmaf(c[n][2 * row + 1], scale, shared->constants[dim + 1]);
        if (IsKey && dim < turned) {
          const float cosine = turn[dim], sine = turn[dim + 1], x0 = x;
          x = x0 * cosine - y * sine;
          y = y * cosine + x0 * sine;
        }
        *reinterpret_cast<uint32_t*>(to + token * Dim + dim) = PackBfloats(x, y);
      }
    }
  }
}

// A tile of plain numbers: a thread takes a token, 8 dims at a time.
template <PageCodec Codec, int Dim, bool IsKey>
__device__ void ExpandPlain(uint16_t* to, const uint8_t* tile, const float* turn, uint32_t turned) {
  static_assert(!IsCodedPage(Codec));
  const int token = threadIdx.x;
  const float scale = Codec == PageCodec::kInt8
                          ? reinterpret_cast<const float*>(tile + kTileTokens * Dim)[token]
                          : 1.0f;
  const auto read = [&](int dim) {
    constexpr int kNear = Codec == PageCodec::kBf16 ? 2 : 4;
    const int at = IsKey ? (dim / kNear * kTileTokens + token) * kNear + dim % kNear
                         : (token / kNear * Dim + dim) * kNear + token % kNear;
    if constexpr (Codec == PageCodec::kBf16) {
      return __uint_as_float(static_cast<uint32_t>(reinterpret_cast<const uint16_t*>(tile)[at])
                             << 16);
    } else {
      return static_cast<float>(reinterpret_cast<const int8_t*>(tile)[at]) * scale;
    }
  };
  for (int first = 0; first < Dim; first += 8) {
    uint32_t packed[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int dim = first + 2 * i;
      float x = read(dim), y = read(dim + 1);
      if (IsKey && dim < turned) {
        const float cosine = turn[dim], sine = turn[dim + 1], x0 = x;
        x = x0 * cosine - y * sine;
        y = y * cosine + x0 * sine;
      }
      packed[i] = PackBfloats(x, y);
    }
    *reinterpret_cast<uint4*>(to + token * Dim + first) =
        make_uint4(packed[0], packed[1], packed[2], packed[3]);
  }
}

template <int Dim, bool IsKey>
__device__ void ExpandTile(const ExpandCall& call, const DevicePage& page, uint32_t head,
                           ExpandShared<Dim>* shared) {
  const size_t slot = (static_cast<size_t>(head) * call.count + blockIdx.x) * kTileTokens;
  uint16_t* to = (IsKey ? call.keys : call.values) + slot * Dim;
  const uint8_t* tile =
      IsKey ? KeyTile(page, call.layer, head) : ValueTile(page, call.layer, head, call.kv_heads);
  const uint32_t turned = call.rope.cos_sin == nullptr ? 0 : 2 * call.rope.half_dim;
  const float* turn = call.rope.cos_sin + (page.first_position - call.frame) * turned;
  const float* basis =
      call.basis.arrays == nullptr
          ? nullptr
          : call.basis.arrays + (2 * head + (IsKey ? 0 : 1)) * BasisSideFloats(Dim);
  WithCodec(IsKey ? page.key_codec : page.value_codec, [&](auto constant) {
    constexpr PageCodec kCodec = decltype(constant)::value;
    if constexpr (!IsCodedPage(kCodec)) {
      if (basis == nullptr) return ExpandPlain<kCodec, Dim, IsKey>(to, tile, turn, turned);
    }
    if constexpr (kCodec != PageCodec::kInt8) {
      ExpandCoordinates<kCodec, Dim, IsKey>(to, tile, basis, turn, turned, shared);
    }
  });
}

// Block (page, KV head, keys or values).
template <int Dim>
__global__ void __launch_bounds__(kWarps * 32)
    ExpandKernel(const __grid_constant__ ExpandCall call) {
  extern __shared__ __align__(16) uint8_t memory[];
  auto* shared = reinterpret_cast<ExpandShared<Dim>*>(memory);
  const DevicePage page = call.pages[blockIdx.x];
  if (page.hidden >= page.tokens) {  // it may not be there; what is masked must still be numbers
    auto* to = reinterpret_cast<uint4*>(blockIdx.z == 0 ? call.keys : call.values) +
               (static_cast<size_t>(blockIdx.y) * call.count + blockIdx.x) * kTileTokens * Dim / 8;
    for (int i = threadIdx.x; i < kTileTokens * Dim / 8; i += kWarps * 32) {
      to[i] = make_uint4(0, 0, 0, 0);
    }
    return;
  }
  if (blockIdx.z == 0) {
    ExpandTile<Dim, true>(call, page, blockIdx.y, shared);
  } else {
    ExpandTile<Dim, false>(call, page, blockIdx.y, shared);
  }
}

template <int Dim>
int Launch(const ExpandCall& call, CUstream_st* stream) {
  constexpr int kBytes = sizeof(ExpandShared<Dim>);
  if (const cudaError_t error = cudaFuncSetAttribute(
          ExpandKernel<Dim>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes)) {
    return error;
  }
  ExpandKernel<Dim><<<dim3(call.count, call.kv_heads, 2), kWarps * 32, kBytes, stream>>>(call);
  return cudaGetLastError();
}

}  // namespace

int ExpandPages(const ExpandCall& call, CUstream_st* stream) {
  if (call.head_dim == 64) return Launch<64>(call, stream);
  if (call.head_dim == 128) return Launch<128>(call, stream);
  return cudaErrorInvalidValue;
}

}  // namespace corpusd::cuda
