// tests/unit/engine/plain_calibration.h -- coordinates for tests of coded blocks, without a model
// or a text: channels nearly alike, means that tell the heads apart.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "engine/calibration/coordinates.h"
#include "engine/calibration/kv_calibration.h"

namespace corpusd {

// mean_step: of every channel, from one head to the next.
inline std::unique_ptr<KvCalibration> PlainCalibration(const KvCalibrationShape& shape,
                                                       double mean_step) {
  const uint32_t dim = shape.head_dim;
  std::vector<KvCoordinateArrays> keys, values;
  for (uint32_t i = 0; i < shape.layers * shape.kv_heads; ++i) {
    KvMoments moments;
    moments.mean.assign(dim, mean_step * i);
    moments.covariance.assign(size_t{dim} * dim, 0);
    for (uint32_t j = 0; j < dim; ++j) moments.covariance[j * dim + j] = 1 + 0.01 * j;
    moments.price = moments.covariance;
    keys.push_back(*BuildCoordinates(moments, dim));
    values.push_back(*BuildCoordinates(moments, dim));
  }
  return std::make_unique<KvCalibration>(shape, std::move(keys), std::move(values));
}

}  // namespace corpusd
