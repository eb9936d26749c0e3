#include "kernels/reference/matmul.h"

namespace corpusd {

void ReferenceMatMul(MatrixView out, MatrixView x, const float* weight, bool accumulate) noexcept {
  const uint32_t cols = x.cols;
  for (uint32_t r = 0; r < out.cols; ++r) {
    const float* w = weight + size_t{r} * cols;
    for (uint32_t n = 0; n < x.rows; ++n) {
      const float* a = x.row(n);
      // Four sums, so that a compiler without leave to reorder additions still overlaps them.
      double sum[4] = {};
      uint32_t k = 0;
      for (; k + 4 <= cols; k += 4) {
        for (uint32_t i = 0; i < 4; ++i) sum[i] += double{a[k + i]} * w[k + i];
      }
      for (; k < cols; ++k) sum[0] += double{a[k]} * w[k];
      const double product = (sum[0] + sum[1]) + (sum[2] + sum[3]);
      float& target = out.row(n)[r];
      target = static_cast<float>(accumulate ? target + product : product);
    }
  }
}

}  // namespace corpusd
