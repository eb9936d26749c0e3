// kernels/kv_basis.h -- the coordinates in which the cq formats keep keys and values: one affine
// map a (layer, KV head), calibrated once per model by the engine. Plain data, float32, row-major;
// the caller owns the arrays and keeps them for as long as a kernel may read them. Any thread.
#pragma once

#include <cstdint>

namespace corpusd {

// D = head_dim. y = (x - mean) * forward, x = y * inverse + mean, where x is a key rotated by its
// slot in the block, or a value.
struct KvCoordinates {
  const float* forward = nullptr;  // [D, D]: y[j] = sum over i of (x[i] - mean[i]) * forward[i][j]
  const float* inverse = nullptr;  // [D, D]: x[i] = mean[i] + sum over j of y[j] * inverse[j][i]
  // [D, D], keys only: a rotated query q meets keys as q . x = q^ . y + q . mean,
  // q^[j] = sum over i of q[i] * query[i][j]. The transpose of inverse.
  const float* query = nullptr;
  // [D / 2][D][2], keys only: pairs of rows of query in bf16, as tiles take them (QueryPairs).
  const uint16_t* query_pairs = nullptr;
  const float* mean = nullptr;              // [D]
  const float* mean_coordinates = nullptr;  // [D]: mean * forward, so q . mean = q^ . this
  // What the encoder minimises of an error e in y: sum over j of
  // weight[j] * (e[j] + sum over i > j of feedback[j][i] * e[i])^2.
  const float* feedback = nullptr;  // [D, D], zero at and below the diagonal
  const float* weight = nullptr;    // [D], positive
};

struct KvBasis {
  KvCoordinates key, value;
};

}  // namespace corpusd
