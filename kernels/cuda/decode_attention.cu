#include "kernels/cuda/decode_attention.h"

#include <cuda_runtime.h>

#include <algorithm>

#include "kernels/cuda/decode_kernel.cuh"

namespace corpusd::cuda {
namespace {

constexpr int kSharedBytes = 227 * 1024;  // what one thread block may have on sm_90

size_t RoundUp(size_t bytes) { return (bytes + 255) / 256 * 256; }

struct Workspace {
  size_t counters, maxima, outputs;  // bytes of each, in this order
};
Workspace WorkspaceOf(const DecodeAttention& request, int multiprocessors) {
  const size_t parts = static_cast<size_t>(request.kv_heads) * multiprocessors * request.query_rows;
  return {RoundUp(request.kv_heads * sizeof(int)), RoundUp(parts * sizeof(float2)),
          parts * request.head_dim * sizeof(float)};
}

template <class Shape>
int Launch(DecodeArguments args, cudaStream_t stream) {
  const int fixed = Shape::SharedBytes(0, args.rows);
  args.stages = std::min(32, (kSharedBytes - fixed) / (Shape::kStageBytes + 16));
  const int shared = Shape::SharedBytes(args.stages, args.rows);
  const auto kernel = DecodeKernel<Shape>;
  if (const cudaError_t error =
          cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared)) {
    return error;
  }
  kernel<<<args.plan.blocks, Shape::kThreads + 32, shared, stream>>>(args);
  return cudaGetLastError();
}

// The shapes are the fastest of those measured: see kernels/README.md.
template <int Bits, int Dim>
int LaunchWidth(const DecodeArguments& args, cudaStream_t stream) {
  if (args.rows > 8) return Launch<DecodeShape<Bits, Dim, 2, 8, 1>>(args, stream);
  if constexpr (Bits == 8) {
    return Launch<DecodeShape<Bits, Dim, 1, 8, 2>>(args, stream);
  } else if constexpr (Bits == 2 && Dim == 128) {
    return Launch<DecodeShape<Bits, Dim, 1, 8, 4>>(args, stream);
  } else {
    return Launch<DecodeShape<Bits, Dim, 1, 12, Dim == 64 ? 4 : 2>>(args, stream);
  }
}

template <int Dim>
int LaunchDim(int bits, const DecodeArguments& args, cudaStream_t stream) {
  switch (bits) {
    case 2:
      return LaunchWidth<2, Dim>(args, stream);
    case 3:
      return LaunchWidth<3, Dim>(args, stream);
    case 4:
      return LaunchWidth<4, Dim>(args, stream);
    default:
      return LaunchWidth<8, Dim>(args, stream);
  }
}

}  // namespace

const char* CheckDecodeAttention(const DecodeAttention& request) {
  if (request.bits != 2 && request.bits != 3 && request.bits != 4 && request.bits != 8) {
    return "the code width must be 2, 3, 4 or 8 bits";
  }
  if (request.head_dim != 64 && request.head_dim != 128) return "the head size must be 64 or 128";
  if (request.kv_heads < 1) return "there must be a KV head";
  if (request.query_rows < 1 || request.query_rows > kMaxQueryRows) {
    return "a KV head may have 1 to 16 query rows: split the questions";
  }
  if (request.tokens < 1) return "there must be a token";
  const int64_t tiles = (static_cast<int64_t>(request.tokens) + kTileTokens - 1) / kTileTokens;
  if (tiles * request.kv_heads >= (int64_t{1} << 31)) return "too many tiles for one launch";
  if ((request.key_offset | request.value_offset | request.tile_stride) % 16 != 0) {
    return "tiles must be aligned to 16 bytes";
  }
  if (!request.blocks || !request.queries || !request.outputs || !request.workspace) {
    return "blocks, queries, outputs and workspace must be given";
  }
  return nullptr;
}

size_t DecodeWorkspaceBytes(const DecodeAttention& request, int multiprocessors) {
  const Workspace sizes = WorkspaceOf(request, multiprocessors);
  return sizes.counters + sizes.maxima + sizes.outputs;
}

int LaunchDecodeAttention(const DecodeAttention& request, int multiprocessors,
                          CUstream_st* stream) {
  const Workspace sizes = WorkspaceOf(request, multiprocessors);
  auto* memory = static_cast<uint8_t*>(request.workspace);
  DecodeArguments args{};
  args.plan.heads = request.kv_heads;
  args.plan.tiles = (request.tokens - 1) / kTileTokens + 1;
  args.plan.blocks = std::min(multiprocessors, args.plan.items());
  args.blocks = request.blocks;
  args.key_offset = request.key_offset;
  args.value_offset = request.value_offset;
  args.tile_stride = request.tile_stride;
  args.queries = request.queries;
  args.outputs = request.outputs;
  args.log_sums = request.log_sums;
  args.tokens = request.tokens;
  args.rows = request.query_rows;
  args.magic = kHalfPair1024;
  args.finished_blocks = reinterpret_cast<int*>(memory);
  args.part_maxima = reinterpret_cast<float2*>(memory + sizes.counters);
  args.part_outputs = reinterpret_cast<float*>(memory + sizes.counters + sizes.maxima);
  return request.head_dim == 64 ? LaunchDim<64>(request.bits, args, stream)
                                : LaunchDim<128>(request.bits, args, stream);
}

}  // namespace corpusd::cuda
