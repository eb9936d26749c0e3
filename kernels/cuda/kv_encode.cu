#include "kernels/cuda/kv_encode.h"

#include <cuda_runtime.h>

#include "kernels/coded_levels.h"
#include "kernels/coded_tile.h"
#include "kernels/cuda/early_launch.h"
#include "kernels/cuda/encode_token.cuh"
#include "kernels/cuda/ptx/dependent_launch.cuh"

namespace corpusd::cuda {
namespace {

constexpr uint32_t kUnaskedShared = 48 * 1024;  // what a kernel may have without being allowed more
constexpr int kSumLanes = 16;  // a block's means are summed in so many interleaved sums

// Block z = [target][kv head][keys, values].
struct Tile {
  const EncodeTarget& target;
  uint32_t head;
  bool is_key;
  PageCodec codec;
  __device__ Tile(const EncodeCall& call, uint32_t z)
      : target(call.placed != nullptr ? call.placed[z / 2 / call.kv_heads]
                                      : call.targets[z / 2 / call.kv_heads]),
        head(z / 2 % call.kv_heads),
        is_key(z % 2 == 0),
        codec(z % 2 == 0 ? call.key_codec : call.value_codec) {}
  __device__ const float* row(const EncodeCall& call, uint32_t r) const {
    return (is_key ? target.keys : target.values) + static_cast<size_t>(r) * call.stride +
           head * call.head_dim;
  }
  __device__ uint8_t* bytes(const EncodeCall& call) const {
    return target.page + call.layer_offset +
           (is_key ? static_cast<size_t>(head) * call.key_tile_bytes
                   : static_cast<size_t>(call.kv_heads) * call.key_tile_bytes +
                         static_cast<size_t>(head) * call.value_tile_bytes);
  }
  __device__ const float* basis(const EncodeCall& call) const {
    return call.basis.arrays + (2 * head + (is_key ? 0 : 1)) * BasisSideFloats(call.head_dim);
  }
};

__device__ __forceinline__ uint16_t Bf16Bits(float value) {
  const uint32_t bits = __float_as_uint(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// Element [slot, dim] of a tile whose groups of `group` neighbours lie together.
__device__ __forceinline__ size_t PlainIndex(bool is_key, uint32_t group, uint32_t head_dim,
                                             uint32_t slot, uint32_t dim) {
  return is_key ? (static_cast<size_t>(dim / group) * kTileTokens + slot) * group + dim % group
                : (static_cast<size_t>(slot / group) * head_dim + dim) * group + slot % group;
}

// --- plain pages without a basis: one block a row, head and side; a thread has one dim.

__device__ float PlainValue(const EncodeCall& call, const Tile& tile, uint32_t r, uint32_t dim) {
  const float* x = tile.row(call, r);
  if (!tile.is_key || call.rope.cos_sin == nullptr || dim >= 2 * call.rope.half_dim) return x[dim];
  const float* turn = call.rope.cos_sin +
                      static_cast<size_t>(tile.target.first_slot + r) * 2 * call.rope.half_dim +
                      dim / 2 * 2;
  const double c = turn[0], s = turn[1], a = x[dim / 2 * 2], b = x[dim / 2 * 2 + 1];
  return static_cast<float>(dim % 2 == 0 ? __dsub_rn(__dmul_rn(a, c), __dmul_rn(b, s))
                                         : __dadd_rn(__dmul_rn(b, c), __dmul_rn(a, s)));
}

__global__ void PlainKernel(const __grid_constant__ EncodeCall call) {
  ptx::BeginBehind();
  __shared__ float largest_of[8];
  const Tile tile(call, blockIdx.y);
  const uint32_t r = blockIdx.x, dim = threadIdx.x, slot = tile.target.first_slot + r;
  if (r >= tile.target.rows) return;
  const float value = PlainValue(call, tile, r, dim);
  if (tile.codec == PageCodec::kBf16) {
    reinterpret_cast<uint16_t*>(
        tile.bytes(call))[PlainIndex(tile.is_key, 2, call.head_dim, slot, dim)] = Bf16Bits(value);
    return;
  }
  float largest = fabsf(value);
  if (!(largest >= 0)) largest = 0;  // fmax passes over what is not a number
  for (int i = 16; i > 0; i /= 2) {
    largest = fmaxf(largest, __shfl_xor_sync(__activemask(), largest, i));
  }
  if (threadIdx.x % 32 == 0) largest_of[threadIdx.x / 32] = largest;
  __syncthreads();
  for (uint32_t w = 0; w < (blockDim.x + 31) / 32; ++w) largest = fmaxf(largest, largest_of[w]);
  const float scale = largest < 1e-30f ? 0.0f : __fdiv_rn(largest, 127.0f);
  const float inverse = scale == 0 ? 0.0f : __fdiv_rn(1.0f, scale);
  const float code = fminf(127.0f, fmaxf(-127.0f, rintf(__fmul_rn(value, inverse))));
  auto* codes = reinterpret_cast<int8_t*>(tile.bytes(call));
  codes[PlainIndex(tile.is_key, 4, call.head_dim, slot, dim)] = static_cast<int8_t>(code);
  if (dim == 0) {
    reinterpret_cast<float*>(codes + static_cast<size_t>(kTileTokens) * call.head_dim)[slot] =
        scale;
  }
}

// --- coordinates: y = (x - mean) * forward as one chain of FMAs over ascending inputs. One block
// 16 rows of one tile, four rows and a dim a thread. `forward` goes through shared memory, so that
// the chains never wait for the device's memory.

constexpr int kRows = kGroupTokens;
constexpr int kTeams = 4;
constexpr int kTeamRows = kRows / kTeams;

__device__ float TurnedInput(const EncodeCall& call, const Tile& tile, uint32_t r, uint32_t dim,
                             uint32_t turned) {
  const float* row = tile.row(call, r);
  if (dim >= turned) return row[dim];
  const float* turn =
      call.rope.cos_sin + static_cast<size_t>(tile.target.first_slot + r) * turned + dim / 2 * 2;
  const float own = row[dim], other = row[dim ^ 1];
  return dim % 2 == 0 ? __fmaf_rn(own, turn[0], -__fmul_rn(other, turn[1]))
                      : __fmaf_rn(own, turn[0], __fmul_rn(other, turn[1]));
}

__global__ void CoordinatesKernel(const __grid_constant__ EncodeCall call) {
  ptx::BeginBehind();
  extern __shared__ __align__(16) float memory[];
  const Tile tile(call, blockIdx.y);
  const uint32_t dims = call.head_dim, first = blockIdx.x * kRows, rows = tile.target.rows;
  if (first >= rows) return;
  float* x = memory;                       // [dims][kRows]
  float* forward = memory + kRows * dims;  // [dims][dims]
  const float* basis = tile.basis(call);
  const float* mean = basis + BasisPartOffset(BasisPart::kMean, dims);
  const auto* from =
      reinterpret_cast<const float4*>(basis + BasisPartOffset(BasisPart::kForward, dims));
#pragma unroll 4
  for (uint32_t i = threadIdx.x; i < dims * dims / 4; i += blockDim.x) {
    reinterpret_cast<float4*>(forward)[i] = from[i];
  }
  const uint32_t turned = tile.is_key && call.rope.cos_sin != nullptr ? 2 * call.rope.half_dim : 0;
  for (uint32_t i = threadIdx.x; i < kRows * dims; i += blockDim.x) {
    const uint32_t dim = i % dims, r = first + i / dims;
    const float v = r < rows ? TurnedInput(call, tile, r, dim, turned) : 0.0f;
    x[dim * kRows + i / dims] = __fsub_rn(FiniteOrZero(v), mean[dim]);
  }
  __syncthreads();
  const uint32_t j = threadIdx.x % dims, own = threadIdx.x / dims * kTeamRows;
  float sums[kTeamRows] = {};
#pragma unroll 8
  for (uint32_t i = 0; i < dims; ++i) {
    const float factor = forward[i * dims + j];
#pragma unroll
    for (int r = 0; r < kTeamRows; ++r) {
      sums[r] = __fmaf_rn(x[i * kRows + own + r], factor, sums[r]);
    }
  }
  float* coordinates = call.scratch + static_cast<size_t>(blockIdx.y) * kTileTokens * dims + j;
#pragma unroll
  for (uint32_t r = 0; r < kTeamRows; ++r) {
    const uint32_t row = first + own + r;
    if (row >= rows) return;
    const float y = fminf(kCoordinateLimit, fmaxf(-kCoordinateLimit, FiniteOrZero(sums[r])));
    if (tile.codec == PageCodec::kBf16) {
      reinterpret_cast<uint16_t*>(tile.bytes(
          call))[PlainIndex(tile.is_key, 2, dims, tile.target.first_slot + row, j)] = Bf16Bits(y);
    } else {
      coordinates[static_cast<size_t>(row) * dims] = y;
    }
  }
}

// --- codes: one block the 16 tokens of a group, a warp a token; the block's means are summed by
// every block anew.

template <int Dim>
struct CodesShared {
  float z[kRows][Dim];   // what is coded
  float rz[kRows][Dim];  // in the metric of the feedback
  float sums[kSumLanes][Dim];
  float means[Dim];
  uint8_t trials[kRows][3][Dim];
  uint8_t codes[kRows][Dim];
  uint8_t scales[kRows];
};

// Sums of every 16th token, then of those in order; as a byte, and as what it stands for.
template <int Dim>
__device__ void BlockMeans(CodesShared<Dim>* shared, const float* y, uint32_t rows,
                           int8_t* mean_bytes) {
  for (int i = threadIdx.x; i < kSumLanes * Dim; i += blockDim.x) {
    const int lane = i / Dim, j = i % Dim;
    float sum = 0;
    for (uint32_t t = lane; t < rows; t += kSumLanes) sum = __fadd_rn(sum, y[t * Dim + j]);
    shared->sums[lane][j] = sum;
  }
  __syncthreads();
  for (int j = threadIdx.x; j < Dim; j += blockDim.x) {
    float total = 0;
    for (int lane = 0; lane < kSumLanes; ++lane) total = __fadd_rn(total, shared->sums[lane][j]);
    const float mean = __fdiv_rn(total, static_cast<float>(rows));
    const float byte = fminf(127.0f, fmaxf(-127.0f, rintf(__fmul_rn(mean, 1.0f / kMeanStep))));
    shared->means[j] = __fmul_rn(byte, kMeanStep);
    if (mean_bytes != nullptr) mean_bytes[j] = static_cast<int8_t>(byte);
  }
  __syncthreads();
}

// The words of the group out of its codes; tokens beyond `filled` are zero.
template <int Bits, int Dim>
__device__ void PackGroup(uint8_t* group, const CodesShared<Dim>* shared, bool is_key) {
  using Layout = CodedTile<Bits, Dim>;
  for (int i = threadIdx.x; i < Layout::kWords * kGroupLanes; i += blockDim.x) {
    const int word = i / kGroupLanes, lane = i % kGroupLanes, g = lane / 4, t = lane % 4;
    uint32_t bits = 0;
    for (int f = 0; f < Layout::kFragments; ++f) {
#pragma unroll
      for (int e = 0; e < 8; ++e) {
        const int r = e / 2, h = e % 2, row = g + 8 * (r & 1), column = 2 * t + h + 8 * (r >> 1);
        const uint32_t code =
            is_key ? shared->codes[row][16 * f + column] : shared->codes[column][16 * f + row];
#pragma unroll
        for (int b = 0; b < Bits; ++b) {
          const BitPlace place = CodedPlaceOfBit(Bits, f, r, h, b);
          if (place.word == word) bits |= (code >> b & 1u) << place.bit;
        }
      }
    }
    *reinterpret_cast<uint32_t*>(group + Layout::WordOffset(word, lane)) = bits;
  }
}

template <int Bits, int Dim>
__device__ void EncodeGroup(const EncodeCall& call, const Tile& tile, CodesShared<Dim>* shared) {
  using Layout = CodedTile<Bits, Dim>;
  const int group = blockIdx.x, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const float* y = call.scratch + static_cast<size_t>(blockIdx.y) * kTileTokens * Dim;
  uint8_t* bytes = tile.bytes(call);
  auto* mean_bytes = reinterpret_cast<int8_t*>(bytes + Layout::kCodeBytes + kTileTokens);
  BlockMeans<Dim>(shared, y, tile.target.rows, group == 0 ? mean_bytes : nullptr);
  const uint32_t token = group * kGroupTokens + warp;
  if (token < tile.target.rows) {
    float* z = shared->z[warp];
    for (int j = lane; j < Dim; j += 32) z[j] = __fsub_rn(y[token * Dim + j], shared->means[j]);
    __syncwarp();
    if constexpr (Bits == 8) {
      EncodeWideToken<Dim>(z, shared->codes[warp], &shared->scales[warp]);
    } else {
      EncodeNarrowToken<Bits, Dim>(z, shared->rz[warp], shared->trials[warp][0], tile.basis(call),
                                   shared->codes[warp], &shared->scales[warp]);
    }
  } else {
    for (int j = lane; j < Dim; j += 32) shared->codes[warp][j] = 0;
    if (lane == 0) shared->scales[warp] = 0;
  }
  __syncthreads();
  PackGroup<Bits, Dim>(bytes + group * Layout::kGroupBytes, shared, tile.is_key);
  if (threadIdx.x < kGroupTokens) {
    bytes[Layout::ScaleOffset(group * kGroupTokens + threadIdx.x)] = shared->scales[threadIdx.x];
  }
  const int padding = Layout::kCodeBytes + kTileTokens + Dim + threadIdx.x;
  if (group == 0 && padding < Layout::kBytes) bytes[padding] = 0;
}

template <int Dim>
__global__ void __launch_bounds__(kGroupTokens * 32)
    CodesKernel(const __grid_constant__ EncodeCall call) {
  ptx::BeginBehind();
  __shared__ CodesShared<Dim> shared;
  const Tile tile(call, blockIdx.y);
  switch (tile.codec) {
    case PageCodec::kCq2:
      return EncodeGroup<2, Dim>(call, tile, &shared);
    case PageCodec::kCq3:
      return EncodeGroup<3, Dim>(call, tile, &shared);
    case PageCodec::kCq4:
      return EncodeGroup<4, Dim>(call, tile, &shared);
    case PageCodec::kCq8:
      return EncodeGroup<8, Dim>(call, tile, &shared);
    default:
      return;
  }
}

bool IsCodedPage(PageCodec codec) { return static_cast<int>(codec) <= 8; }

}  // namespace

int EncodePages(const EncodeCall& call, CUstream_st* stream) {
  const uint32_t tiles = 2 * call.kv_heads * call.count;
  const uint32_t rows = call.rows_max;
  if (call.basis.arrays == nullptr) {
    return LaunchEarly(PlainKernel, dim3(rows, tiles), call.head_dim, 0, stream, call);
  }
  const uint32_t groups = (rows + kRows - 1) / kRows;
  const uint32_t bytes = (kRows + call.head_dim) * call.head_dim * sizeof(float);
  if (bytes > kUnaskedShared) {
    if (const cudaError_t error = cudaFuncSetAttribute(
            CoordinatesKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes)) {
      return error;
    }
  }
  if (const cudaError_t error = LaunchEarly(CoordinatesKernel, dim3(groups, tiles),
                                            kTeams * call.head_dim, bytes, stream, call)) {
    return error;
  }
  if (!IsCodedPage(call.key_codec) && !IsCodedPage(call.value_codec)) return cudaSuccess;
  const dim3 grid(kGroups, tiles);
  constexpr unsigned kThreads = kGroupTokens * 32;
  if (call.head_dim == 64) return LaunchEarly(CodesKernel<64>, grid, kThreads, 0, stream, call);
  if (call.head_dim == 128) return LaunchEarly(CodesKernel<128>, grid, kThreads, 0, stream, call);
  return cudaErrorInvalidValue;
}

}  // namespace corpusd::cuda
