// kernels/kv_rows.h -- rows of keys or values of one KV head on their way into the coordinates of a
// basis: what encoders are called with. Plain data; the caller owns the arrays; any thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/kv_basis.h"
#include "kernels/shapes.h"

namespace corpusd {

struct KvRows {
  const float* data = nullptr;  // row r at data + r * stride, head_dim floats
  size_t stride = 0;
  uint32_t rows = 0;
  uint32_t head_dim = 0;
  uint32_t first_slot = 0;          // of row 0 in its block
  const uint32_t* slots = nullptr;  // [rows], in place of first_slot + row; or null
  const RopeTable* rope = nullptr;  // keys are rotated by their slot; null: values, or no positions
  const KvCoordinates* coordinates = nullptr;

  const float* row(uint32_t r) const { return data + r * stride; }
  uint32_t slot(uint32_t r) const { return slots == nullptr ? first_slot + r : slots[r]; }
};

}  // namespace corpusd
