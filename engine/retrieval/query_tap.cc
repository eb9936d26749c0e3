#include "engine/retrieval/query_tap.h"

#include <algorithm>

namespace corpusd {

QueryTap::QueryTap(std::span<const RetrievalHead> heads, uint32_t head_dim)
    : heads_(heads), head_dim_(head_dim) {
  for (const RetrievalHead& head : heads) last_layer_ = std::max(last_layer_, head.layer);
}

void QueryTap::Begin(uint32_t rows) {
  rows_ = rows;
  queries_.assign(size_t{rows} * heads_.size() * head_dim_, 0);
}

bool QueryTap::Take(Backend& backend, uint32_t layer, MatrixView qkv, uint32_t first_row) {
  const auto wanted = [&](const RetrievalHead& head) { return head.layer == layer; };
  if (std::none_of(heads_.begin(), heads_.end(), wanted)) return true;
  MatrixView rows = qkv.Rows(first_row, rows_);
  if (!backend.host_addressable()) {
    copy_.resize(size_t{rows_} * qkv.row_stride);
    const uint64_t bytes = (size_t{rows_ - 1} * qkv.row_stride + qkv.cols) * sizeof(float);
    if (!backend
             .Copy(reinterpret_cast<std::byte*>(copy_.data()),
                   reinterpret_cast<const std::byte*>(rows.data), bytes)
             .ok()) {
      return false;
    }
    rows.data = copy_.data();
  }
  for (size_t h = 0; h < heads_.size(); ++h) {
    if (!wanted(heads_[h])) continue;
    for (uint32_t r = 0; r < rows_; ++r) {
      std::copy_n(rows.row(r) + size_t{heads_[h].q_head} * head_dim_, head_dim_,
                  queries_.data() + (r * heads_.size() + h) * head_dim_);
    }
  }
  return true;
}

}  // namespace corpusd
