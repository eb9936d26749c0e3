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

void QueryTap::Take(uint32_t layer, MatrixView qkv, uint32_t first_row) {
  for (size_t h = 0; h < heads_.size(); ++h) {
    if (heads_[h].layer != layer) continue;
    for (uint32_t r = 0; r < rows_; ++r) {
      const float* const q = qkv.row(first_row + r) + size_t{heads_[h].q_head} * head_dim_;
      std::copy_n(q, head_dim_, queries_.data() + (r * heads_.size() + h) * head_dim_);
    }
  }
}

}  // namespace corpusd
