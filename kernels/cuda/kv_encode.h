// kernels/cuda/kv_encode.h -- new keys and values become the bytes of pages, on the device: the
// very bytes of the encoders of kernels/reference (kv_tile, coded_tile_codec), whose float32
// operations are repeated one by one. Each call enqueues at most two kernels on the stream and
// returns a cudaError_t. Any thread, for distinct scratch.
#pragma once

#include "kernels/cuda/page.h"

namespace corpusd::cuda {

// As many as a kernel's parameters hold.
inline constexpr int kEncodeTargetsMax = 80;

// Rows that become slots first_slot .. of one page. The cq codecs take a page's tokens at once:
// first_slot 0; the bytes of other slots become zero.
struct EncodeTarget {
  uint8_t* page = nullptr;
  const float* keys = nullptr;    // row r at + r * stride: [kv_heads * head_dim]
  const float* values = nullptr;  // the same stride
  uint32_t rows = 0, first_slot = 0;
};

struct EncodeCall {
  EncodeTarget targets[kEncodeTargetsMax];
  const EncodeTarget* placed = nullptr;  // on the device, instead of `targets`
  uint32_t rows_max = 0;                 // of a target
  uint32_t unused = 0;                   // no padding, as in DeviceMatrix
  int count = 0;
  uint32_t stride = 0;
  uint32_t kv_heads = 0, head_dim = 0;  // head_dim: 64, 128, 256; plain pages: a multiple of 16
  PageCodec key_codec = PageCodec::kBf16, value_codec = PageCodec::kBf16;
  uint8_t unused_too[6] = {};
  uint64_t layer_offset = 0;  // of the layer's K tiles in a page
  uint32_t key_tile_bytes = 0, value_tile_bytes = 0;
  DeviceRope rope;           // turns keys by their slot
  DeviceBasis basis;         // of the layer
  float* scratch = nullptr;  // EncodeScratchFloats
};

// Of coordinates on their way: [targets][kv_heads][keys, values][128][head_dim].
constexpr size_t EncodeScratchFloats(int targets, uint32_t kv_heads, uint32_t head_dim) {
  return size_t{2} * targets * kv_heads * 128 * head_dim;
}

int EncodePages(const EncodeCall& call, CUstream_st* stream);

}  // namespace corpusd::cuda
