// tests/unit/kernels/basis_fixture.h -- well-conditioned random coordinates for tests of the cq
// formats, all from a seed, exactly invertible up to rounding. Owned by the test; one thread.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/kv_basis.h"

namespace corpusd {

// Bases of some KV heads of one layer.
class TestBasis {
 public:
  // feedback: size of the strictly upper part of the encoder's weights; 0: plain rounding.
  TestBasis(uint32_t kv_heads, uint32_t head_dim, uint32_t seed, float feedback = 0.5f);
  TestBasis(const TestBasis&) = delete;
  TestBasis& operator=(const TestBasis&) = delete;
  const KvBasis* basis() const { return bases_.data(); }

 private:
  KvCoordinates Make(uint32_t head_dim, uint32_t seed, float feedback);
  const float* Keep(std::vector<float> values);

  std::vector<std::vector<float>> arrays_;
  std::vector<std::vector<uint16_t>> pairs_;
  std::vector<KvBasis> bases_;
};

}  // namespace corpusd
