// Every table's row-wise operations against the reference.
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/reference/normalize.h"
#include "tests/unit/kernels/kernel_fixture.h"

namespace corpusd {
namespace {

void ExpectClose(const std::vector<float>& got, const std::vector<float>& expected,
                 std::string_view name) {
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_NEAR(got[i], expected[i], 1e-6 + 3e-6 * std::fabs(expected[i])) << name << " at " << i;
  }
}

TEST(IsaElementwise, RmsNormMatchesTheReference) {
  for (const CpuKernels* kernels : TestedKernels()) {
    for (const uint32_t cols : {1u, 15u, 16u, 17u, 576u}) {
      std::vector<float> x = RandomFloats(size_t{cols} * 3, 20.0f, cols);
      const std::vector<float> gain = RandomFloats(cols, 1.0f, cols + 1);
      std::vector<float> got(x.size());
      std::vector<float> expected(x.size());
      const MatrixView input{x.data(), 3, cols, cols};
      kernels->rms_norm({got.data(), 3, cols, cols}, input, gain.data(), 1e-5f);
      ReferenceRmsNorm({expected.data(), 3, cols, cols}, input, gain.data(), 1e-5f);
      ExpectClose(got, expected, kernels->name);
    }
  }
}

TEST(IsaElementwise, SwiGluMatchesTheReferenceAtExtremesToo) {
  for (const CpuKernels* kernels : TestedKernels()) {
    for (const uint32_t cols : {1u, 16u, 21u, 1536u}) {
      std::vector<float> x = RandomFloats(size_t{cols} * 4, 8.0f, cols);
      x[0] = 1e4f;
      x[size_t{cols} * 2] = -1e4f;
      std::vector<float> got(size_t{cols} * 2);
      std::vector<float> expected(got.size());
      const MatrixView input{x.data(), 2, cols * 2, cols * 2};
      kernels->swiglu({got.data(), 2, cols, cols}, input);
      ReferenceSwiGlu({expected.data(), 2, cols, cols}, input);
      ExpectClose(got, expected, kernels->name);
    }
  }
}

}  // namespace
}  // namespace corpusd
