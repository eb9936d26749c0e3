// engine/retrieval/query_tap.h -- takes the queries of a few heads out of forward passes, as
// Forward leaves them in its scratch between two layers: not rotated, so that they meet un-rotated
// keys whatever their positions. One thread at a time.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/retrieval/retrieval_heads.h"
#include "kernels/shapes.h"

namespace corpusd {

class QueryTap {
 public:
  // heads must outlive it.
  QueryTap(std::span<const RetrievalHead> heads, uint32_t head_dim);

  // Forgets what it has; the next pass is of so many rows.
  void Begin(uint32_t rows);
  // After layer `layer`: rows [first_row, first_row + rows()) of qkv, in the backend's memory,
  // [n, (q_heads + 2 kv_heads) * head_dim]. RETURNS false if the device failed.
  bool Take(Backend& backend, uint32_t layer, MatrixView qkv, uint32_t first_row);

  uint32_t rows() const { return rows_; }
  // [rows][heads][head_dim]
  std::span<const float> queries() const { return queries_; }
  // Layers above this one hold none of the heads.
  uint32_t last_layer() const { return last_layer_; }

 private:
  const std::span<const RetrievalHead> heads_;
  const uint32_t head_dim_;
  uint32_t last_layer_ = 0;
  uint32_t rows_ = 0;
  std::vector<float> queries_;
  std::vector<float> copy_;  // of a device's rows
};

}  // namespace corpusd
