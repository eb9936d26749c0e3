// kernels/cuda/prefill_attention.h -- attention of many query rows over pages in any codec: every
// page's tiles of the layer become plain bfloat16 keys and values once a call, keys turned to one
// common frame; then one pass of tensor-core attention with an online softmax (FlashAttention-2,
// Dao 2023, arXiv 2307.08691). A row's result depends on its own query and the pages' order alone,
// bit for bit. Each call enqueues one kernel on the stream and returns a cudaError_t. Any thread,
// for distinct workspaces.
#pragma once

#include "kernels/cuda/page.h"

namespace corpusd::cuda {

struct ExpandCall {
  const DevicePage* pages = nullptr;  // on the device
  uint32_t count = 0;
  uint32_t layer = 0;
  uint32_t kv_heads = 0, head_dim = 0;  // head_dim: 64, 128
  DeviceRope rope;                      // null: keys have no positions
  DeviceBasis basis;
  int64_t frame = 0;  // the position that keys are turned to; at most any page's first
  // [kv_heads][count * 128][head_dim] bfloat16
  uint16_t* keys = nullptr;
  uint16_t* values = nullptr;
};
int ExpandPages(const ExpandCall& call, CUstream_st* stream);

// Neighbouring rows of one sequence: what a block takes.
constexpr uint32_t kPrefillTileRows = 64;
struct PrefillTile {
  uint32_t first_row = 0, rows = 0;    // of q; at most kPrefillTileRows
  uint32_t first_page = 0, pages = 0;  // of PrefillAttention::pages
  int64_t first_position = 0;          // of the first row
};

struct PrefillAttention {
  DeviceMatrix out, q;  // [rows, q_heads * head_dim]; q is not turned yet
  uint32_t q_heads = 0, kv_heads = 0, head_dim = 0;
  float scale = 0;
  const PrefillTile* tiles = nullptr;  // on the device; those that see most come first
  uint32_t tile_count = 0;
  const DevicePage* pages = nullptr;  // on the device: what is filled and hidden
  uint32_t page_count = 0;            // of all sequences
  DeviceRope rope;
  int64_t frame = 0;  // as in ExpandCall
  const uint16_t* keys = nullptr;
  const uint16_t* values = nullptr;
  // [q.rows, q_heads]: the base-2 logarithm of each sum of weights, -infinity where nothing is
  // seen; data null: not wanted.
  DeviceMatrix log_sums;
};
int AttendExpanded(const PrefillAttention& call, CUstream_st* stream);

}  // namespace corpusd::cuda
