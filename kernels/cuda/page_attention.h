// kernels/cuda/page_attention.h -- attention of few query rows over pages in any codec, read where
// they lie: one block a part of a row's pages and KV head, then a merge of the parts. A row may
// have pages of its own or share them; its result depends on its own query and pages alone, bit for
// bit. Enqueues two kernels on the stream, returns a cudaError_t. Any thread, for distinct
// workspaces.
//
// Method: split-KV decoding (Flash-Decoding, Dao et al. 2023) with tensor-core products on levels;
// queries and weights are two terms of half precision each, so that products keep float32's worth.
#pragma once

#include "kernels/cuda/page.h"

namespace corpusd::cuda {

struct AttentionRow {
  uint32_t first_page = 0;  // in PageAttention::pages
  uint32_t pages = 0;       // those with a visible token; the others must be left out
  int64_t position = 0;
};

struct PageAttention {
  DeviceMatrix out, q;  // [rows, q_heads * head_dim]; q is not turned yet
  uint32_t q_heads = 0, kv_heads = 0, head_dim = 0;  // head_dim: 64, 128
  float scale = 0;
  uint32_t layer = 0;
  const DevicePage* pages = nullptr;   // on the device
  const AttentionRow* rows = nullptr;  // on the device, [q.rows]
  uint32_t pages_max = 0;              // of a row
  DeviceRope rope;
  DeviceBasis basis;
  float* workspace = nullptr;  // PageAttentionFloats
};

// Parts of a row of so many pages, and pages of a part: functions of the row's own pages.
constexpr uint32_t kAttentionPartsMax = 256;
constexpr uint32_t PagesOfPart(uint32_t pages) {
  return (pages + kAttentionPartsMax - 1) / kAttentionPartsMax;
}
constexpr uint32_t PartsOfRow(uint32_t pages) {
  return pages == 0 ? 0 : (pages + PagesOfPart(pages) - 1) / PagesOfPart(pages);
}
constexpr size_t PageAttentionFloats(uint32_t rows, uint32_t pages_max, uint32_t q_heads,
                                     uint32_t head_dim) {
  const uint32_t parts = pages_max < kAttentionPartsMax ? pages_max : kAttentionPartsMax;
  return size_t{rows} * q_heads * (parts == 0 ? 1 : parts) * (head_dim + 2);
}

int AttendPages(const PageAttention& call, CUstream_st* stream);

}  // namespace corpusd::cuda
