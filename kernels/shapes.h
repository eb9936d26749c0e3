// kernels/shapes.h -- the plain data kernels are called with: views, pages, masks. No ownership.
// Shapes are written [rows, cols]; strides count elements. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/kv_format.h"

namespace corpusd {

// A float32 matrix [rows, cols], row r at data + r * row_stride.
struct MatrixView {
  float* data = nullptr;
  uint32_t rows = 0;
  uint32_t cols = 0;
  uint32_t row_stride = 0;

  float* row(uint32_t r) const { return data + size_t{r} * row_stride; }
  MatrixView Rows(uint32_t first, uint32_t count) const {
    return {data + size_t{first} * row_stride, count, cols, row_stride};
  }
  MatrixView Cols(uint32_t first, uint32_t count) const {
    return {data + first, rows, count, row_stride};
  }
};

// cos and sin of delta * frequency, for delta in [0, positions): row delta holds
// [cos(d*f0), sin(d*f0), cos(d*f1), sin(d*f1), ...], 2 * (head_dim / 2) floats, attention scaling
// included in neither. Built in double, rounded once.
struct RopeTable {
  const float* cos_sin = nullptr;
  uint32_t positions = 0;
  uint32_t half_dim = 0;  // pairs that rotate; the rest of head_dim passes unrotated
  const float* row(uint32_t delta) const { return cos_sin + size_t{delta} * half_dim * 2; }
};

// A readable page: up to block_tokens tokens of KV, all layers, in one format. Keys are stored
// rotated by their offset inside the page (adjacent pairs (2j, 2j+1), the GGUF llama convention).
struct KvPage {
  const std::byte* bytes = nullptr;  // KvFormat::BlockBytes() bytes, 64-byte aligned
  uint64_t first_position = 0;       // position of slot 0
  uint32_t tokens = 0;               // filled slots, from slot 0
  uint32_t hidden = 0;               // slots at the start that no query sees
};

// The pages a query may attend to, in position order, gap-free or not. All pages of one list share
// a format; a session over an int8 corpus passes two lists (corpus pages, its own bf16 pages).
// Where a KvBasis is in use, all pages of all lists hold its coordinates.
struct KvPageList {
  const KvFormat* format = nullptr;
  std::span<const KvPage> pages;
};

// Keys are taken in parts of so many pages; each part has its own softmax, merged in order. That
// cut is fixed, so a decode spread over threads and a prefill give the same bits.
inline constexpr uint32_t kPartPages = 4;

struct AttentionShape {
  uint32_t q_heads = 0;
  uint32_t kv_heads = 0;  // q head h reads KV head h / (q_heads / kv_heads)
  uint32_t head_dim = 0;
  float scale = 0;      // multiplies q.k
  uint32_t window = 0;  // a query sees so many keys up to its own position; 0: all
};

}  // namespace corpusd
