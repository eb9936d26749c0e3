// kernels/cuda/long_part.cuh -- which pages, KV head and query heads a block has of a long row, the
// same for the kernels of every kind of pages: block (part, KV head and eight of its query heads,
// row). Plain arithmetic; every thread of a block finds the same.
#pragma once

#include "kernels/cuda/page_attention.h"

namespace corpusd::cuda {

constexpr int kChunk = kLongChunkPages;
constexpr int kChunkRows = kChunk * static_cast<int>(kHeadsOfBlock);  // (page, head)

struct LongPart {
  AttentionRow row;
  uint32_t parts = 0;           // of the row
  uint32_t first = 0, end = 0;  // pages; none in a row that is not long
  uint32_t kv_head = 0, head = 0;
  int heads = 0;  // query heads, from `head` on

  __device__ __forceinline__ explicit LongPart(const PageAttention& call)
      : row(call.rows[blockIdx.z]) {
    if (row.pages < kLongPages) return;
    const uint32_t group = call.q_heads / call.kv_heads;
    const uint32_t chunks = (group + kHeadsOfBlock - 1) / kHeadsOfBlock;
    const uint32_t each = LongPagesOfPart(row.pages, call.kv_blocks());
    const uint32_t first_head = blockIdx.y % chunks * kHeadsOfBlock;
    parts = (row.pages + each - 1) / each;
    first = min(blockIdx.x * each, row.pages);
    end = min(first + each, row.pages);
    kv_head = blockIdx.y / chunks;
    head = kv_head * group + first_head;
    heads = static_cast<int>(min(group - first_head, kHeadsOfBlock));
  }
  __device__ __forceinline__ bool any() const { return first < end; }
  __device__ __forceinline__ const float* Queries(const PageAttention& call) const {
    return call.q.data + static_cast<size_t>(blockIdx.z) * call.q.stride + head * call.head_dim;
  }
  // Where the block leaves what it found in pages of a kind.
  __device__ __forceinline__ float* State(const PageAttention& call, uint32_t kind, int h) const {
    return call.State(blockIdx.z, head + h, kind * parts + blockIdx.x);
  }
};

}  // namespace corpusd::cuda
