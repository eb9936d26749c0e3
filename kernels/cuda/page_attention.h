// kernels/cuda/page_attention.h -- attention of few query rows over pages in any codec, read where
// they lie: one block a part of a row's pages and KV head, then a merge of the parts. Rows of very
// many pages have long parts and a kernel of their own. A row may have pages of its own or share
// them; its result depends on its own query and pages alone, bit for bit. Enqueues two or three
// kernels on the stream, returns a cudaError_t. Any thread, for distinct workspaces.
//
// Method: split-KV decoding (Flash-Decoding, Dao et al. 2023) with tensor-core products on levels;
// queries and weights are two terms of half precision each, so that products keep float32's worth.
#pragma once

#include "kernels/coded_tile.h"
#include "kernels/cuda/page.h"

namespace corpusd::cuda {

struct AttentionRow {
  uint32_t first_page = 0;  // in PageAttention::pages
  uint32_t pages = 0;       // those with a visible token; the others must be left out
  int64_t position = 0;
};

constexpr uint32_t kAttentionPartsMax = 256;

struct PageAttention {
  DeviceMatrix out, q;  // [rows, q_heads * head_dim]; q is not turned yet
  uint32_t q_heads = 0, kv_heads = 0, head_dim = 0;  // head_dim: 64, 128
  float scale = 0;
  uint32_t layer = 0;
  const DevicePage* pages = nullptr;      // on the device
  const AttentionRow* rows = nullptr;     // on the device, [q.rows]
  uint32_t pages_min = 0, pages_max = 0;  // of a row
  DeviceRope rope;
  DeviceBasis basis;
  float* workspace = nullptr;  // PageAttentionFloats

  // Places of a row's and head's parts in the workspace.
  CORPUSD_HOST_DEVICE uint32_t parts_max() const {
    return pages_max < kAttentionPartsMax ? pages_max : kAttentionPartsMax;
  }
};

// Pages of a part: a function of the row's own pages and, for long rows, of the model's shape.
constexpr uint32_t kLongPages = 1024;
constexpr uint32_t kLongChunkPages = 8;
// Of all KV heads (and eights of their query heads) together: two a multiprocessor of a Hopper
// device.
constexpr uint32_t kLongBlocks = 264;
CORPUSD_HOST_DEVICE constexpr uint32_t LongPartsMax(uint32_t kv_blocks) {
  return kv_blocks >= kLongBlocks                       ? 1
         : kLongBlocks / kv_blocks > kAttentionPartsMax ? kAttentionPartsMax
                                                        : kLongBlocks / kv_blocks;
}
CORPUSD_HOST_DEVICE constexpr uint32_t LongPagesOfPart(uint32_t pages, uint32_t kv_blocks) {
  const uint32_t chunks = (pages + kLongChunkPages - 1) / kLongChunkPages;
  const uint32_t parts = LongPartsMax(kv_blocks);
  return (chunks + parts - 1) / parts * kLongChunkPages;
}
CORPUSD_HOST_DEVICE constexpr uint32_t PagesOfPart(uint32_t pages, uint32_t kv_blocks) {
  return pages >= kLongPages ? LongPagesOfPart(pages, kv_blocks)
                             : (pages + kAttentionPartsMax - 1) / kAttentionPartsMax;
}
constexpr size_t PageAttentionFloats(uint32_t rows, uint32_t pages_max, uint32_t q_heads,
                                     uint32_t head_dim) {
  const uint32_t parts = pages_max < kAttentionPartsMax ? pages_max : kAttentionPartsMax;
  return size_t{rows} * q_heads * (parts == 0 ? 1 : parts) * (head_dim + 2);
}

int AttendPages(const PageAttention& call, CUstream_st* stream);
// The parts of the rows of at least kLongPages pages; for AttendPages.
int AttendLongParts(const PageAttention& call, CUstream_st* stream);

}  // namespace corpusd::cuda
