// kernels/cuda/page_attention.h -- attention of few query rows over pages in any codec, read where
// they lie: one block a part of a row's pages and KV head, then a merge of the parts. Rows of very
// many pages have long parts and kernels of their own, one a kind of pages. A row may have pages of
// its own or share them; its result depends on its own query and pages alone, bit for bit. Enqueues
// a few kernels on the stream, returns a cudaError_t. Any thread, for distinct workspaces.
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

constexpr uint32_t kAttentionPartsMax = 256;  // of a row and kind of pages
constexpr uint32_t kHeadsOfBlock = 8;         // query heads of one block: a product's columns

// Kinds of pages: those whose keys and values are coded in one width, and all others.
constexpr uint32_t kOtherPages = 0, kPageKinds = 5;
CORPUSD_HOST_DEVICE constexpr uint32_t PageKindOfBits(int bits) {
  return bits == 8 ? 4 : static_cast<uint32_t>(bits) - 1;
}
CORPUSD_HOST_DEVICE constexpr uint32_t PageKindOf(PageCodec key, PageCodec value) {
  return key == value && static_cast<int>(key) <= 8 ? PageKindOfBits(static_cast<int>(key))
                                                    : kOtherPages;
}

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
  const uint32_t parts = LongPartsMax(kv_blocks);
  return (pages + parts - 1) / parts;
}
CORPUSD_HOST_DEVICE constexpr uint32_t PagesOfPart(uint32_t pages, uint32_t kv_blocks) {
  return pages >= kLongPages ? LongPagesOfPart(pages, kv_blocks)
                             : (pages + kAttentionPartsMax - 1) / kAttentionPartsMax;
}
// KV heads, each as often as eight of its query heads are left.
CORPUSD_HOST_DEVICE constexpr uint32_t KvBlocks(uint32_t q_heads, uint32_t kv_heads) {
  return kv_heads * ((q_heads / kv_heads + kHeadsOfBlock - 1) / kHeadsOfBlock);
}
// What queries become in the coordinates of their KV heads' keys, floats of a row: of layers
// without positions (long rows of them), and so for all pages.
CORPUSD_HOST_DEVICE constexpr uint32_t CoordinateFloats(uint32_t kv_blocks, uint32_t head_dim) {
  return kv_blocks * kHeadsOfBlock * head_dim;
}
// Places of a row's and head's parts in the workspace. Those of a long row: parts of the first kind
// of pages, of the second, ...
CORPUSD_HOST_DEVICE constexpr uint32_t PartPlaces(uint32_t pages_max, uint32_t kv_blocks) {
  const uint32_t parts = pages_max < kAttentionPartsMax ? pages_max : kAttentionPartsMax;
  const uint32_t of_long = kPageKinds * LongPartsMax(kv_blocks);
  return pages_max >= kLongPages && of_long > parts ? of_long : parts;
}

struct PageAttention {
  DeviceMatrix out, q;  // [rows, q_heads * head_dim]; q is not turned yet
  uint32_t q_heads = 0, kv_heads = 0, head_dim = 0;  // head_dim: 64, 128
  float scale = 0;
  uint32_t layer = 0;
  uint32_t minus_one = ~0u;               // which the compiler does not know: ProductTable
  const DevicePage* pages = nullptr;      // on the device
  const AttentionRow* rows = nullptr;     // on the device, [q.rows]
  uint32_t pages_min = 0, pages_max = 0;  // of a row
  uint32_t kinds = 0;                     // bit i: there may be pages of kind i
  uint32_t one = 1;
  DeviceRope rope;
  DeviceBasis basis;           // coded pages have one
  float* workspace = nullptr;  // PageAttentionFloats
  // [q.rows, q_heads]: the base-2 logarithm of each sum of weights, -infinity where nothing is
  // seen; `out` is then left in the coordinates of the basis. data null: not wanted.
  DeviceMatrix log_sums;

  CORPUSD_HOST_DEVICE uint32_t kv_blocks() const { return KvBlocks(q_heads, kv_heads); }
  CORPUSD_HOST_DEVICE uint32_t places() const { return PartPlaces(pages_max, kv_blocks()); }
  // Where the state of a part lies: maximum, sum, then the values' sums.
  CORPUSD_HOST_DEVICE float* State(uint32_t row, uint32_t head, uint32_t place) const {
    return workspace +
           ((static_cast<size_t>(row) * q_heads + head) * places() + place) * (head_dim + 2);
  }
  // [8][head_dim], behind the states.
  CORPUSD_HOST_DEVICE float* Coordinates(uint32_t row, uint32_t kv_block) const {
    return State(q.rows, 0, 0) +
           static_cast<size_t>(row) * CoordinateFloats(kv_blocks(), head_dim) +
           kv_block * kHeadsOfBlock * head_dim;
  }
};

constexpr size_t PageAttentionFloats(uint32_t rows, uint32_t pages_max, uint32_t q_heads,
                                     uint32_t kv_heads, uint32_t head_dim) {
  const uint32_t kv_blocks = KvBlocks(q_heads, kv_heads), places = PartPlaces(pages_max, kv_blocks);
  return size_t{rows} * (q_heads * (places == 0 ? 1 : places) * (head_dim + 2) +
                         (pages_max >= kLongPages ? CoordinateFloats(kv_blocks, head_dim) : 0));
}

int AttendPages(const PageAttention& call, CUstream_st* stream);
// The parts of the rows of at least kLongPages pages, for AttendPages: over pages that are coded in
// one width, and over all others.
int AttendCodedParts(const PageAttention& call, CUstream_st* stream);
int AttendLongParts(const PageAttention& call, CUstream_st* stream);
// The same as AttendCodedParts, for layers without positions; and of these, codes of 2 to 4 bits,
// for which queries are brought into coordinates first.
int AttendStillParts(const PageAttention& call, CUstream_st* stream);
int FindCoordinates(const PageAttention& call, CUstream_st* stream);
int AttendLoneParts(const PageAttention& call, CUstream_st* stream);

}  // namespace corpusd::cuda
