// kernels/cuda/decode_kernel.cuh -- the kernel behind decode_attention.h. One thread block runs on
// each multiprocessor: one warp brings pairs of K and V tiles into a ring in shared memory, the
// others turn them into partial results (m, l, o) in registers; at the end of a head the warps, and
// by the last block of the head all blocks, are merged.
#pragma once

#include <cstdint>

#include "kernels/cuda/decode_state.cuh"

namespace corpusd::cuda {

// The loading warp: each lane knows where one of the next tiles lies and copies it when its stage
// is free.
template <class Shape>
__device__ void LoadTiles(const DecodeArguments& args, const DecodeShared<Shape>& shared, int first,
                          int last) {
  constexpr int kTeams = Shape::kTeams, kBatch = 32 / kTeams * kTeams;
  constexpr int kBytes = Shape::Tile::kBytes;
  const int lane = threadIdx.x % 32;
  int stage = 0, parity = 1;
  for (int from = first; from < last;) {
    const int head = from / args.plan.tiles, end = min(last, (head + 1) * args.plan.tiles);
    for (int base = from; base < end; base += kBatch) {
      const int tile = min(base + lane, end - 1) - head * args.plan.tiles;
      const uint8_t* source = args.blocks[tile] + head * args.tile_stride;
      for (int i = 0; i < min(kBatch, end - base); i += kTeams) {
        const int count = min(kTeams, end - base - i);
        if (lane == 0) {
          ptx::WaitPhase(shared.empty + stage, parity);
          ptx::ArriveExpecting(shared.full + stage, count * 2 * kBytes);
        }
        __syncwarp();
        if (lane >= i && lane < i + count) {
          uint8_t* to = shared.ring + stage * Shape::kStageBytes + (lane - i) * Shape::kPairBytes;
          ptx::CopyToShared(to, source + args.key_offset, kBytes, shared.full + stage);
          ptx::CopyToShared(to + Shape::kSlotBytes, source + args.value_offset, kBytes,
                            shared.full + stage);
        }
        if (++stage == args.stages) stage = 0, parity ^= 1;
      }
    }
    from = end;
  }
}

// Sums the warps' results into the block's part of the head.
template <class Shape>
__device__ void StorePart(const DecodeArguments& args, const DecodeShared<Shape>& shared,
                          size_t slot) {
  const int values = args.rows * Shape::Dim;
  for (int i = threadIdx.x; i < values; i += Shape::kThreads) {
    float x = 0;
#pragma unroll
    for (int w = 0; w < Shape::Warps; ++w) x += shared.outputs[w * values + i];
    args.part_outputs[slot * values + i] = x;
  }
  for (int row = threadIdx.x; row < args.rows; row += Shape::kThreads) {
    float top = kNoScore, sum = 0;
#pragma unroll
    for (int w = 0; w < Shape::Warps; ++w) {
      top = fmaxf(top, shared.maxima[w * 8 * Shape::Columns + row].x);
    }
#pragma unroll
    for (int w = 0; w < Shape::Warps; ++w) {
      const float2 x = shared.maxima[w * 8 * Shape::Columns + row];
      sum += x.y * ptx::Exp2(x.x - top);
    }
    args.part_maxima[slot * args.rows + row] = make_float2(top, sum);
  }
}

// The head's last block merges the parts of all its blocks: a warp takes a query row, a lane
// Dim / 32 dims.
template <class Shape>
__device__ void MergeParts(const DecodeArguments& args, int head, int parts) {
  constexpr int kDims = Shape::Dim / 32;
  const int lane = threadIdx.x % 32;
  const size_t first = static_cast<size_t>(head) * args.plan.blocks;
  for (int row = threadIdx.x / 32; row < args.rows; row += Shape::Warps) {
    const float2* maxima = args.part_maxima + first * args.rows + row;
    float top = kNoScore, sum = 0;
    for (int i = lane; i < parts; i += 32) top = fmaxf(top, __ldcg(maxima + i * args.rows).x);
#pragma unroll
    for (int i = 16; i > 0; i /= 2) top = fmaxf(top, __shfl_xor_sync(kWholeWarp, top, i));
    for (int i = lane; i < parts; i += 32) {
      const float2 x = __ldcg(maxima + i * args.rows);
      sum += x.y * ptx::Exp2(x.x - top);
    }
#pragma unroll
    for (int i = 16; i > 0; i /= 2) sum += __shfl_xor_sync(kWholeWarp, sum, i);
    float total[kDims] = {};
    const float* from = args.part_outputs + (first * args.rows + row) * Shape::Dim + lane * kDims;
#pragma unroll 8
    for (int i = 0; i < parts; ++i) {
      const float factor = ptx::Exp2(__ldcg(maxima + i * args.rows).x - top);
#pragma unroll
      for (int d = 0; d < kDims; d += 2) {
        const float2 x = __ldcg(reinterpret_cast<const float2*>(
            from + static_cast<size_t>(i) * args.rows * Shape::Dim + d));
        total[d] += factor * x.x, total[d + 1] += factor * x.y;
      }
    }
    const size_t at = static_cast<size_t>(head) * args.rows + row;
#pragma unroll
    for (int d = 0; d < kDims; ++d) {
      args.outputs[at * Shape::Dim + lane * kDims + d] = total[d] / sum;
    }
    if (lane == 0 && args.log_sums != nullptr) args.log_sums[at] = top + __log2f(sum);
  }
}

// The block has done its share of the head.
template <class Shape>
__device__ void FinishHead(const DecodeArguments& args, const DecodeShared<Shape>& shared,
                           WarpState<Shape>& state, int head) {
  const int first = args.plan.FirstBlock(head);
  const int parts = args.plan.LastBlock(head) - first + 1;
  state.Store(args, shared);
  StorePart(args, shared,
            static_cast<size_t>(head) * args.plan.blocks + (static_cast<int>(blockIdx.x) - first));
  __threadfence();
  ptx::SyncThreads<Shape::kThreads>();
  if (threadIdx.x == 0) {
    *shared.last = atomicAdd(args.finished_blocks + head, 1) == parts - 1;
    if (*shared.last) args.finished_blocks[head] = 0;  // ready for the next launch
  }
  ptx::SyncThreads<Shape::kThreads>();
  if (*shared.last) {
    __threadfence();
    MergeParts<Shape>(args, head, parts);
  }
  ptx::SyncThreads<Shape::kThreads>();
}

template <class Shape>
__global__ void __launch_bounds__(Shape::kThreads + 32, 1)
    DecodeKernel(const __grid_constant__ DecodeArguments args) {
  extern __shared__ __align__(128) uint8_t memory[];
  const DecodeShared<Shape> shared(memory, args.stages, args.rows);
  const int first = args.plan.Start(blockIdx.x), last = args.plan.Start(blockIdx.x + 1);
  if (threadIdx.x == 0) {
    for (int i = 0; i < args.stages; ++i) {
      ptx::InitBarrier(shared.full + i, 1);
      ptx::InitBarrier(shared.empty + i, Shape::Warps);
    }
    ptx::PublishBarriers();
  }
  __syncthreads();
  const int warp = threadIdx.x / 32;
  if (warp == Shape::Warps) {
    LoadTiles(args, shared, first, last);
    return;
  }
  const int team = warp / Shape::kTileWarps, part = warp % Shape::kTileWarps;
  int stage = 0, parity = 0;
  for (int item = first; item < last;) {
    const int head = item / args.plan.tiles, end = min(last, (head + 1) * args.plan.tiles);
    WarpState<Shape> state;
    state.Begin(args, head);
    for (; item < end; item += Shape::kTeams) {
      ptx::WaitPhase(shared.full + stage, parity);
      if (item + team < end) {
        state.AddTile(args, shared.ring + stage * Shape::kStageBytes + team * Shape::kPairBytes,
                      item + team - head * args.plan.tiles, part);
      }
      __syncwarp();
      if (threadIdx.x % 32 == 0) ptx::Arrive(shared.empty + stage);
      if (++stage == args.stages) stage = 0, parity ^= 1;
    }
    item = end;
    FinishHead(args, shared, state, head);
  }
}

}  // namespace corpusd::cuda
