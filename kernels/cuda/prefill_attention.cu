// AttendExpanded: tiles of 64 queries x 64 keys, four warps of 16 queries; keys and values in two
// stages of shared memory.
#include "kernels/cuda/prefill_attention.h"

#include <cuda_runtime.h>

#include "kernels/cuda/page_fragment.cuh"
#include "kernels/cuda/ptx/async_copy.cuh"
#include "kernels/cuda/ptx/tensor_core.cuh"

namespace corpusd::cuda {
namespace {

constexpr int kWarps = 4;
static_assert(16 * kWarps == kPrefillTileRows);
constexpr int kKeys = 64;
constexpr int kTilesOfPage = kTileTokens / kKeys;
constexpr float kLog2E = 1.4426950408889634f;

template <int Dim>
struct Stage {
  uint16_t keys[kKeys][Dim + 8];  // rows 16 bytes apart in the banks
  uint16_t values[kKeys][Dim + 8];
};

// The tiles of keys that some row of the block may see, in order.
struct TileCursor {
  uint32_t tile, end;
  __device__ __forceinline__ void Find(const PrefillAttention& call, int64_t last_position) {
    for (; tile < end; ++tile) {
      const DevicePage& page = call.pages[tile / kTilesOfPage];
      const int first = tile % kTilesOfPage * kKeys;
      if (VisibleEnd(page, last_position) > first && page.hidden < first + kKeys) return;
    }
  }
};

template <int Dim>
__device__ __forceinline__ void FetchTile(Stage<Dim>* stage, const PrefillAttention& call,
                                          uint32_t kv_head, uint32_t tile) {
  const size_t first =
      (static_cast<size_t>(kv_head) * call.page_count * kTilesOfPage + tile) * kKeys * Dim;
  constexpr int kChunks = Dim / 8;
#pragma unroll
  for (int i = threadIdx.x; i < kKeys * kChunks; i += kWarps * 32) {
    const int row = i / kChunks, column = i % kChunks * 8;
    ptx::CopyAsync16(&stage->keys[row][column], call.keys + first + row * Dim + column, true);
    ptx::CopyAsync16(&stage->values[row][column], call.values + first + row * Dim + column, true);
  }
  ptx::CommitCopies();
}

// One warp's 16 rows. Lane 4g + t has rows g, g + 8 and columns 2t, 2t + 1 of each 8.
template <int Dim>
struct RowState {
  uint32_t query[Dim / 16][4];
  float output[Dim / 8][4] = {};
  float top[2] = {-INFINITY, -INFINITY}, sum[2] = {};
  int64_t position;  // of row g

  // rows: what is left of the sequence's tile from the warp's first row on.
  __device__ __forceinline__ void LoadQueries(const PrefillAttention& call, uint32_t first_row,
                                              int rows, int64_t first_position, uint32_t head);
  __device__ __forceinline__ void Attend(const Stage<Dim>& stage, const DevicePage& page,
                                         int first_slot);
  __device__ __forceinline__ void Store(const PrefillAttention& call, uint32_t first_row, int rows,
                                        uint32_t head);
};

template <int Dim>
__device__ __forceinline__ void RowState<Dim>::LoadQueries(const PrefillAttention& call,
                                                           uint32_t first_row, int rows,
                                                           int64_t first_position, uint32_t head) {
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  const uint32_t turned = call.rope.cos_sin == nullptr ? 0 : 2 * call.rope.half_dim;
  const float scale = call.scale * kLog2E;
  position = first_position + g;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t row = first_row + g + 8 * i;
    const float* q = call.q.data + static_cast<size_t>(row) * call.q.stride + head * Dim;
    const float* turn = call.rope.cos_sin + (position + 8 * i - call.frame) * turned;
#pragma unroll
    for (int f = 0; f < Dim / 16; ++f) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const uint32_t dim = 16 * f + 8 * half + 2 * t;
        float x = 0, y = 0;
        if (g + 8 * i < rows) {
          x = q[dim] * scale;
          y = q[dim + 1] * scale;
          if (dim < turned) {
            const float cosine = turn[dim], sine = turn[dim + 1], x0 = x;
            x = x0 * cosine - y * sine;
            y = y * cosine + x0 * sine;
          }
        }
        query[f][2 * half + i] = PackBfloats(x, y);
      }
    }
  }
}

template <int Dim>
__device__ __forceinline__ void RowState<Dim>::Attend(const Stage<Dim>& stage,
                                                      const DevicePage& page, int first_slot) {
  const int lane = threadIdx.x % 32, t = lane % 4;
  float score[kKeys / 8][4] = {};
#pragma unroll
  for (int n = 0; n < kKeys / 16; ++n) {
#pragma unroll
    for (int f = 0; f < Dim / 16; ++f) {
      uint32_t b[4];
      ptx::LoadMatrices(
          b, ptx::SharedAddress(
                 &stage.keys[16 * n + lane / 16 * 8 + lane % 8][16 * f + lane / 8 % 2 * 8]));
      ptx::MmaBf16(score[2 * n], query[f], b[0], b[1]);
      ptx::MmaBf16(score[2 * n + 1], query[f], b[2], b[3]);
    }
  }
  // A history is seen whole: nothing to compare, slot by slot.
  const int hidden = page.hidden - first_slot;
  const bool whole = hidden <= 0 && VisibleEnd(page, position) >= first_slot + kKeys;
  if (!__all_sync(~0u, whole)) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int visible = VisibleEnd(page, position + 8 * i) - first_slot;
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          const int slot = 8 * n + 2 * t + c;
          if (slot >= visible || slot < hidden) score[n][2 * i + c] = -INFINITY;
        }
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    float highest = top[i];
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) {
      highest = fmaxf(highest, fmaxf(score[n][2 * i], score[n][2 * i + 1]));
    }
    highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, 1));
    highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, 2));
    const float center = highest == -INFINITY ? 0.0f : highest;
    const float factor = ptx::Exp2(top[i] - center);
    top[i] = highest;
    float mass = 0;
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        float& x = score[n][2 * i + c];
        x = ptx::Exp2(x - center);
        mass += x;
      }
    }
    sum[i] = fmaf(sum[i], factor, mass);
#pragma unroll
    for (int n = 0; n < Dim / 8; ++n) output[n][2 * i] *= factor, output[n][2 * i + 1] *= factor;
  }
#pragma unroll
  for (int k = 0; k < kKeys / 16; ++k) {
    const uint32_t weight[4] = {PackBfloats(score[2 * k][0], score[2 * k][1]),
                                PackBfloats(score[2 * k][2], score[2 * k][3]),
                                PackBfloats(score[2 * k + 1][0], score[2 * k + 1][1]),
                                PackBfloats(score[2 * k + 1][2], score[2 * k + 1][3])};
#pragma unroll
    for (int d = 0; d < Dim / 16; ++d) {
      uint32_t b[4];
      ptx::LoadMatricesTransposed(
          b, ptx::SharedAddress(
                 &stage.values[16 * k + lane / 8 % 2 * 8 + lane % 8][16 * d + lane / 16 * 8]));
      ptx::MmaBf16(output[2 * d], weight, b[0], b[1]);
      ptx::MmaBf16(output[2 * d + 1], weight, b[2], b[3]);
    }
  }
}

template <int Dim>
__device__ __forceinline__ void RowState<Dim>::Store(const PrefillAttention& call,
                                                     uint32_t first_row, int rows, uint32_t head) {
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    float total = sum[i];
    total += __shfl_xor_sync(~0u, total, 1);
    total += __shfl_xor_sync(~0u, total, 2);
    const float inverse = total == 0 ? 0.0f : 1.0f / total;
    const uint32_t row = first_row + g + 8 * i;
    if (g + 8 * i >= rows) continue;
    if (call.log_sums.data != nullptr && t == 0) {
      call.log_sums.data[static_cast<size_t>(row) * call.log_sums.stride + head] =
          total == 0 ? -INFINITY : top[i] + log2f(total);
    }
    float* out = call.out.data + static_cast<size_t>(row) * call.out.stride + head * Dim + 2 * t;
#pragma unroll
    for (int n = 0; n < Dim / 8; ++n) {
      out[8 * n] = output[n][2 * i] * inverse;
      out[8 * n + 1] = output[n][2 * i + 1] * inverse;
    }
  }
}

// Block (query head, tile).
template <int Dim>
__global__ void __launch_bounds__(kWarps * 32, Dim == 64 ? 4 : 2)
    PrefillKernel(const __grid_constant__ PrefillAttention call) {
  extern __shared__ __align__(16) uint8_t memory[];
  auto* stages = reinterpret_cast<Stage<Dim>*>(memory);
  const uint32_t head = blockIdx.x, kv_head = head / (call.q_heads / call.kv_heads);
  const PrefillTile rows = call.tiles[blockIdx.y];
  const int64_t last_position = rows.first_position + rows.rows - 1;
  const int above = threadIdx.x / 32 * 16, left = static_cast<int>(rows.rows) - above;
  RowState<Dim> state;
  state.LoadQueries(call, rows.first_row + above, left, rows.first_position + above, head);
  const uint32_t end = (rows.first_page + rows.pages) * kTilesOfPage;
  TileCursor next{rows.first_page * kTilesOfPage, end};
  next.Find(call, last_position);
  if (next.tile < end) FetchTile<Dim>(&stages[0], call, kv_head, next.tile);
  for (int turn = 0; next.tile < end; ++turn) {
    const uint32_t tile = next.tile++;
    next.Find(call, last_position);
    ptx::WaitCopies<0>();
    __syncthreads();
    if (next.tile < end) FetchTile<Dim>(&stages[(turn + 1) % 2], call, kv_head, next.tile);
    state.Attend(stages[turn % 2], call.pages[tile / kTilesOfPage], tile % kTilesOfPage * kKeys);
  }
  state.Store(call, rows.first_row + above, left, head);
}

template <int Dim>
int Launch(const PrefillAttention& call, CUstream_st* stream) {
  constexpr int kBytes = 2 * sizeof(Stage<Dim>);
  if (const cudaError_t error = cudaFuncSetAttribute(
          PrefillKernel<Dim>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes)) {
    return error;
  }
  const dim3 grid(call.q_heads, call.tile_count);
  PrefillKernel<Dim><<<grid, kWarps * 32, kBytes, stream>>>(call);
  return cudaGetLastError();
}

}  // namespace

int AttendExpanded(const PrefillAttention& call, CUstream_st* stream) {
  if (call.head_dim == 64) return Launch<64>(call, stream);
  if (call.head_dim == 128) return Launch<128>(call, stream);
  return cudaErrorInvalidValue;
}

}  // namespace corpusd::cuda
