#include "kernels/cuda/column_copy.h"

#include <cuda_runtime.h>

#include <algorithm>

namespace corpusd::cuda {
namespace {

constexpr uint32_t kThreads = 256;
constexpr uint64_t kBlocksMax = 132 * 16;  // they go round

// A thread four numbers of a row.
__global__ void ColumnCopyKernel(const __grid_constant__ ColumnCopy call, uint32_t row_quads) {
  const uint64_t all = static_cast<uint64_t>(call.out.rows) * row_quads;
  for (uint64_t i = static_cast<uint64_t>(blockIdx.x) * kThreads + threadIdx.x; i < all;
       i += static_cast<uint64_t>(gridDim.x) * kThreads) {
    const uint64_t row = i / row_quads;
    uint32_t column = static_cast<uint32_t>(i % row_quads) * 4, piece = 0;
    while (column >= call.pieces[piece].cols) column -= call.pieces[piece++].cols;
    const float* from = call.in.data + row * call.in.stride + call.pieces[piece].from + column;
    float* to = call.out.data + row * call.out.stride + call.pieces[piece].to + column;
    *reinterpret_cast<float4*>(to) = *reinterpret_cast<const float4*>(from);
  }
}

}  // namespace

int CopyColumns(const ColumnCopy& call, CUstream_st* stream) {
  uint32_t cols = 0;
  for (uint32_t p = 0; p < call.count; ++p) cols += call.pieces[p].cols;
  const uint64_t quads = static_cast<uint64_t>(call.out.rows) * (cols / 4);
  if (quads == 0) return cudaSuccess;
  const uint64_t blocks = std::min((quads + kThreads - 1) / kThreads, kBlocksMax);
  ColumnCopyKernel<<<static_cast<uint32_t>(blocks), kThreads, 0, stream>>>(call, cols / 4);
  return cudaGetLastError();
}

}  // namespace corpusd::cuda
