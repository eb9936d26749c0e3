// engine/calibration/coordinates.h -- from what was measured of a head's keys or values to the
// coordinates in which the cq formats code them: the basis in which data and the price of an error
// are balanced, spread by a signed Hadamard. Pure; any thread.
#pragma once

#include <cstdint>
#include <vector>

#include "store/base/result.h"

namespace corpusd {

// Moments of what is stored (keys rotated by their slot, or values) of one KV head; D = head_dim.
struct KvMoments {
  std::vector<double> mean;        // [D]
  std::vector<double> covariance;  // [D, D], of the difference from the mean of a token's block
  std::vector<double> price;       // [D, D] C: an error e costs e^T C e, in any unit
};

// Arrays behind a KvCoordinates; float32, row-major, as kernels/kv_basis.h says.
struct KvCoordinateArrays {
  std::vector<float> mean, forward, inverse, feedback, weight;
};

// T = H diag(lambda^0.1) U^T L^-1 / norm with covariance = L L^T, L^T C L = U diag(lambda) U^T and
// H a signed Hadamard: unit variance in every coordinate. feedback and weight come from the
// Cholesky factor of C in these coordinates (as LDLQ does for weights: Chee et al. 2023, arXiv
// 2307.13304). kInvalidArgument: head_dim is no power of two, or the moments are not finite.
Result<KvCoordinateArrays> BuildCoordinates(const KvMoments& moments, uint32_t head_dim);

}  // namespace corpusd
