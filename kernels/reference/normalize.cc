#include "kernels/reference/normalize.h"

#include <cmath>

namespace corpusd {

void ReferenceRmsNorm(MatrixView out, MatrixView x, const float* gain, float epsilon) noexcept {
  for (uint32_t n = 0; n < x.rows; ++n) {
    const float* a = x.row(n);
    double sum = 0;
    for (uint32_t i = 0; i < x.cols; ++i) sum += double{a[i]} * a[i];
    const double inverse = 1.0 / std::sqrt(sum / x.cols + double{epsilon});
    for (uint32_t i = 0; i < x.cols; ++i) {
      out.row(n)[i] = static_cast<float>(a[i] * inverse * gain[i]);
    }
  }
}

void ReferenceSwiGlu(MatrixView out, MatrixView gate_up) noexcept {
  for (uint32_t n = 0; n < out.rows; ++n) {
    const float* gate = gate_up.row(n);
    const float* up = gate + out.cols;
    for (uint32_t i = 0; i < out.cols; ++i) {
      const double g = gate[i];
      out.row(n)[i] = static_cast<float>(g / (1.0 + std::exp(-g)) * up[i]);
    }
  }
}

}  // namespace corpusd
