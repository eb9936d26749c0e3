// kernels/reference/attention.h -- attention over KV pages, the specification: one query head at a
// time, all in double. Pure function; any thread. The caller lends the scratch.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/kv_basis.h"
#include "kernels/shapes.h"

namespace corpusd {

struct ReferenceAttentionTask {
  AttentionShape shape;
  uint32_t layer = 0;
  uint64_t first_position = 0;
  std::span<const KvPageList> lists;
  const RopeTable* rope = nullptr;  // null: no positions
  const KvBasis* basis = nullptr;   // [kv_heads]: all pages hold its coordinates; null: plain
};

// out[row, head] = softmax(scale * q . k) v over every key whose position is at most the row's and
// that is not hidden.
// Rows with no visible key become zero. scratch: as many doubles as the pages hold tokens.
void ReferenceAttention(MatrixView out, MatrixView q, const ReferenceAttentionTask& task,
                        std::span<double> scratch) noexcept;

}  // namespace corpusd
