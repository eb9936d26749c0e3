// kernels/reference/normalize.h -- the row-wise operations between matrix products, the
// specification. Pure functions in double; any thread. out may be the input.
#pragma once

#include "kernels/shapes.h"

namespace corpusd {

// out = x / sqrt(mean(x^2) + epsilon) * gain, per row; gain: [cols].
void ReferenceRmsNorm(MatrixView out, MatrixView x, const float* gain, float epsilon) noexcept;
// out[n, f] = silu(gate_up[n, f]) * gate_up[n, out.cols + f]
void ReferenceSwiGlu(MatrixView out, MatrixView gate_up) noexcept;

}  // namespace corpusd
