// kernels/cuda/prefill_attention.h -- attention of many query rows over pages in any codec: every
// page's tiles of the layer become plain bfloat16 keys and values once a call, keys turned to one
// common frame; then one pass of tensor-core attention with an online softmax (FlashAttention-3,
// Shah et al. 2024, arXiv 2407.08608). A row's result depends on its own query and the pages' order
// alone, bit for bit. Each call enqueues one or two kernels on the stream and returns a
// cudaError_t. Any thread, for distinct workspaces.
#pragma once

#include "kernels/coded_tile.h"
#include "kernels/cuda/page.h"

namespace corpusd::cuda {

// A tile of expanded keys or values: [head_dim / 64][128 tokens][64 dims] bfloat16, the 16-byte
// pieces of each token's 128 bytes permuted by the token, as the tensor core reads them.
// RETURNS the byte offset of a dim of a token.
CORPUSD_HOST_DEVICE constexpr uint32_t ExpandedOffset(uint32_t token, uint32_t dim) {
  return dim / 64 * (kTileTokens * 128) + token * 128 + ((dim % 64 / 8) ^ (token % 8)) * 16 +
         dim % 8 * 2;
}

struct ExpandCall {
  const DevicePage* pages = nullptr;  // on the device
  uint32_t count = 0;
  uint32_t layer = 0;
  uint32_t kv_heads = 0, head_dim = 0;  // head_dim: 64, 128
  DeviceRope rope;                      // null: keys have no positions
  DeviceBasis basis;
  int64_t frame = 0;  // the position that keys are turned to; at most any page's first
  // [kv_heads][count] tiles, aligned to 128 bytes
  uint16_t* keys = nullptr;
  uint16_t* values = nullptr;
};
int ExpandPages(const ExpandCall& call, CUstream_st* stream);

// Neighbouring rows of one sequence, in order of position.
constexpr uint32_t kPrefillTileRows = 128;
struct PrefillTile {
  uint32_t first_row = 0, rows = 0;    // of q; at most kPrefillTileRows
  uint32_t first_page = 0, pages = 0;  // of PrefillAttention::pages; those behind what the last row
                                       // sees may be left out
  int64_t first_position = 0;          // of the first row
};

// Where the results of a tile lie, if not at its rows of `out` and `log_sums`: floats from there.
struct PrefillPlace {
  int64_t out = 0, log_sums = 0;  // out: a multiple of 4
};

// A row's pages are taken in spans of so many, counted from the tile's first page; each span has a
// softmax of its own, and spans are added up in order.
constexpr uint32_t PrefillSpanPages(uint32_t head_dim) { return head_dim == 64 ? 64 : 256; }
constexpr uint32_t kPrefillBlocks = 132;     // multiprocessors of a Hopper device
constexpr uint32_t kPrefillStackRows = 128;  // (row, head) pairs of one block and time
constexpr uint64_t kPrefillWorkspaceMax = uint64_t{1} << 28;  // floats

// Floats of the state of a stack of rows: output, reference, sum.
constexpr uint64_t PrefillStateFloats(uint32_t head_dim) {
  return uint64_t{kPrefillStackRows} * (head_dim + 8);
}
// RETURNS how many parts a stack's spans are spread over: all, if there are too few stacks to keep
// the device busy, else one. A row's bits do not depend on it.
constexpr uint32_t PrefillParts(uint32_t tile_count, uint32_t pages_max, uint32_t q_heads,
                                uint32_t head_dim) {
  const uint32_t span = PrefillSpanPages(head_dim), spans = (pages_max + span - 1) / span;
  const uint64_t stacks = uint64_t{tile_count} * q_heads;
  const bool few = stacks < 4 * kPrefillBlocks &&
                   stacks * spans * PrefillStateFloats(head_dim) <= kPrefillWorkspaceMax;
  return spans > 1 && few ? spans : 1;
}
constexpr uint64_t PrefillStatesFloats(uint32_t tile_count, uint32_t pages_max, uint32_t q_heads,
                                       uint32_t head_dim, bool twice = false) {
  if (twice) return 2 * uint64_t{kPrefillBlocks} * PrefillStateFloats(head_dim);
  const uint32_t parts = PrefillParts(tile_count, pages_max, q_heads, head_dim);
  const uint64_t states = parts > 1 ? uint64_t{tile_count} * q_heads * parts
                          : pages_max > PrefillSpanPages(head_dim) ? kPrefillBlocks
                                                                   : 0;
  return states * PrefillStateFloats(head_dim);
}
// And the number of the next stack that nobody has taken.
constexpr uint64_t PrefillWorkspaceFloats(uint32_t tile_count, uint32_t pages_max, uint32_t q_heads,
                                          uint32_t head_dim, bool twice = false) {
  return PrefillStatesFloats(tile_count, pages_max, q_heads, head_dim, twice) + 1;
}

struct PrefillAttention {
  DeviceMatrix out, q;  // [rows, q_heads * head_dim], aligned to 16 bytes; q is not turned yet
  uint32_t q_heads = 0, kv_heads = 0, head_dim = 0;
  float scale = 0;
  uint32_t window = 0;                 // a row sees so many tokens up to its own; 0: all
  const PrefillTile* tiles = nullptr;  // on the device; those that see most come first
  uint32_t tile_count = 0;
  uint32_t pages_max = 0;  // of a tile
  // Tiles [tile_count, 2 * tile_count) are of the same rows over pages that have a result of their
  // own, which is added to the first one as MergeNodeStates does. Spans are not spread then.
  bool twice = false;
  // [tile_count], on the device: of rows that have several results, each over pages of its own.
  // Null: every tile's are at its rows.
  const PrefillPlace* places = nullptr;
  const DevicePage* pages = nullptr;  // on the device: what is filled and hidden
  uint32_t page_count = 0;            // of all sequences
  DeviceRope rope;
  int64_t frame = 0;  // as in ExpandCall
  const uint16_t* keys = nullptr;
  const uint16_t* values = nullptr;
  float* workspace = nullptr;  // PrefillWorkspaceFloats
  // [q.rows, q_heads]: the base-2 logarithm of each sum of weights, -infinity where nothing is
  // seen; data null: not wanted.
  DeviceMatrix log_sums;
};
int AttendExpanded(const PrefillAttention& call, CUstream_st* stream);

}  // namespace corpusd::cuda
