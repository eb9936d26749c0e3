// kernels/reference/matmul.h -- matrix product, the specification: plain loops, sums in double.
// Pure functions; any thread.
#pragma once

#include "kernels/shapes.h"

namespace corpusd {

// out[n, r] (+)= sum_k x[n, k] * weight[r, k]; weight is [rows, cols] without padding.
void ReferenceMatMul(MatrixView out, MatrixView x, const float* weight, bool accumulate) noexcept;

}  // namespace corpusd
