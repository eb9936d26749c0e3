// kernels/cuda/long_part.cuh -- which pages, KV head and query heads a block has of a long row, the
// same for the kernels of every kind of pages: block (part, KV head and eight of its query heads,
// row), unless a kernel numbers its parts otherwise. Plain arithmetic; every thread finds the same.
#pragma once

#include "kernels/cuda/page_attention.h"

namespace corpusd::cuda {

constexpr int kChunk = kLongChunkPages;
constexpr int kChunkRows = kChunk * static_cast<int>(kHeadsOfBlock);  // (page, head)

struct LongPart {
  AttentionRow row;
  uint32_t parts = 0;           // of the row
  uint32_t first = 0, end = 0;  // pages; none in a row that is not long
  uint32_t index = 0;           // of the part
  uint32_t kv_head = 0, head = 0;
  int heads = 0;  // query heads, from `head` on

  // kv_block: KV head and eight of its query heads.
  __device__ __forceinline__ LongPart(const PageAttention& call, uint32_t part, uint32_t kv_block)
      : row(call.rows[blockIdx.z]), index(part) {
    if (row.pages < kLongPages) return;
    const uint32_t group = call.q_heads / call.kv_heads;
    const uint32_t chunks = (group + kHeadsOfBlock - 1) / kHeadsOfBlock;
    const uint32_t each = LongPagesOfPart(row.pages, call.kv_blocks());
    const uint32_t first_head = kv_block % chunks * kHeadsOfBlock;
    parts = (row.pages + each - 1) / each;
    first = min(part * each, row.pages);
    end = min(first + each, row.pages);
    kv_head = kv_block / chunks;
    head = kv_head * group + first_head;
    heads = static_cast<int>(min(group - first_head, kHeadsOfBlock));
  }
  __device__ __forceinline__ explicit LongPart(const PageAttention& call)
      : LongPart(call, blockIdx.x, blockIdx.y) {}
  __device__ __forceinline__ bool any() const { return first < end; }
  __device__ __forceinline__ uint32_t pages() const { return end - first; }
  __device__ __forceinline__ const float* Queries(const PageAttention& call) const {
    return call.q.data + static_cast<size_t>(blockIdx.z) * call.q.stride + head * call.head_dim;
  }
  // Where the block leaves what it found in pages of a kind.
  __device__ __forceinline__ float* State(const PageAttention& call, uint32_t kind, int h) const {
    return call.State(blockIdx.z, head + h, kind * parts + index);
  }
};

}  // namespace corpusd::cuda
