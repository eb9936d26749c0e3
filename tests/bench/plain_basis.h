// tests/bench/plain_basis.h -- plain coordinates in the form of a basis: what a coded tile costs
// does not depend on its numbers. Immutable; any thread.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/kv_basis.h"
#include "kernels/reference/kv_tile.h"

namespace corpusd {

class PlainBasis {
 public:
  PlainBasis(uint32_t head_dim, uint32_t kv_heads)
      : square_(size_t{head_dim} * head_dim),
        none_(size_t{head_dim} * head_dim),
        zeros_(head_dim),
        ones_(head_dim, 1.0F),
        pairs_(size_t{head_dim} * head_dim) {
    for (size_t i = 0; i < head_dim; ++i) square_[i * head_dim + i] = 1.0F;
    QueryPairs(pairs_.data(), square_.data(), head_dim);
    const KvCoordinates plain{.forward = square_.data(),
                              .inverse = square_.data(),
                              .query = square_.data(),
                              .query_pairs = pairs_.data(),
                              .mean = zeros_.data(),
                              .mean_coordinates = zeros_.data(),
                              .feedback = none_.data(),
                              .weight = ones_.data()};
    heads_.assign(kv_heads, {plain, plain});
  }
  PlainBasis(const PlainBasis&) = delete;
  PlainBasis& operator=(const PlainBasis&) = delete;
  const KvBasis* heads() const { return heads_.data(); }

 private:
  std::vector<float> square_, none_, zeros_, ones_;
  std::vector<uint16_t> pairs_;
  std::vector<KvBasis> heads_;
};

}  // namespace corpusd
