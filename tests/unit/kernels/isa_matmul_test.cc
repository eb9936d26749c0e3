// Every table's matrix product against the reference, and its independence of how the work is cut.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/reference/matmul.h"
#include "tests/unit/kernels/kernel_fixture.h"

namespace corpusd {
namespace {

struct Product {
  Product(WeightType type, uint32_t x_rows, uint32_t rows, uint32_t cols, uint32_t seed = 1)
      : weight(type, rows, cols, seed),
        x_values(RandomFloats(size_t{x_rows} * cols, 1.0f, seed + 1)),
        before(RandomFloats(size_t{x_rows} * rows, 1.0f, seed + 2)),
        x{x_values.data(), x_rows, cols, cols} {}

  std::vector<float> Run(const CpuKernels& kernels, bool accumulate, MatMulCut cut = {}) {
    std::vector<float> out = before;
    RunMatMul(kernels, {out.data(), x.rows, weight.packed.rows, weight.packed.rows}, x,
              weight.packed, accumulate, cut);
    return out;
  }

  RandomWeight weight;
  std::vector<float> x_values;
  std::vector<float> before;
  MatrixView x;
};

void ExpectNearReference(const CpuKernels& kernels, Product& product, bool accumulate) {
  const std::vector<float> got = product.Run(kernels, accumulate);
  const uint32_t rows = product.weight.packed.rows;
  const uint32_t cols = product.x.cols;
  // Types without a packed form of their own are rounded to bf16 once, at load.
  const bool rounded =
      product.weight.packed.kind == PackedKind::kBf16 && product.weight.type != WeightType::kBf16;
  const double precision =
      std::max(ProductPrecision(kernels, product.weight.packed.kind, product.x.rows),
               rounded                                    ? 0x1p-8
               : product.weight.type == WeightType::kQ4_K ? 0x1p-11  // its scales, to float16
                                                          : 0.0);
  std::vector<float> expected = product.before;
  ReferenceMatMul({expected.data(), product.x.rows, rows, rows}, product.x,
                  product.weight.values.data(), accumulate);
  for (uint32_t n = 0; n < product.x.rows; ++n) {
    for (uint32_t r = 0; r < rows; ++r) {
      double squares = 0;
      for (uint32_t k = 0; k < cols; ++k) {
        const double term =
            double{product.x.row(n)[k]} * product.weight.values[size_t{r} * cols + k];
        squares += term * term;
      }
      // Rounding errors of the terms add like a random walk; 8 deviations never happen by chance.
      // The chain of float32 sums adds a part that grows with the result.
      const size_t i = size_t{n} * rows + r;
      const double bound =
          8 * precision * std::sqrt(squares) + 3e-6 * (std::fabs(expected[i]) + std::sqrt(squares));
      ASSERT_NEAR(got[i], expected[i], bound)
          << kernels.name << " row " << n << " output " << r << " of [" << product.x.rows << ", "
          << cols << "] x [" << rows << ", " << cols << "], type "
          << static_cast<int>(product.weight.type);
    }
  }
}

TEST(IsaMatMul, EveryTypeMatchesTheReference) {
  for (const CpuKernels* kernels : TestedKernels()) {
    for (const WeightType type :
         {WeightType::kF32, WeightType::kF16, WeightType::kBf16, WeightType::kQ4_0,
          WeightType::kQ4_1, WeightType::kQ5_0, WeightType::kQ5_1, WeightType::kQ8_0,
          WeightType::kQ4_K, WeightType::kQ5_K, WeightType::kQ6_K}) {
      for (const bool accumulate : {false, true}) {
        Product few(type, 2, 48, 512);
        ExpectNearReference(*kernels, few, accumulate);
        Product many(type, 35, 48, 768);
        ExpectNearReference(*kernels, many, accumulate);
      }
    }
  }
}

TEST(IsaMatMul, EveryRowCountAndTailMatchesTheReference) {
  for (const CpuKernels* kernels : TestedKernels()) {
    for (uint32_t rows = 1; rows <= 34; ++rows) {
      Product product(WeightType::kQ4_1, rows, 33 + rows, 96, rows);
      ExpectNearReference(*kernels, product, rows % 2 == 0);
    }
    for (const uint32_t cols : {1u, 2u, 31u, 33u, 50u, 257u, 300u}) {
      Product product(WeightType::kF32, 9, 17, cols, cols);
      ExpectNearReference(*kernels, product, false);
    }
  }
}

TEST(IsaMatMul, ModelShapesMatchTheReference) {
  for (const CpuKernels* kernels : TestedKernels()) {
    Product qkv(WeightType::kQ4_1, 20, 960, 576);
    ExpectNearReference(*kernels, qkv, false);
    Product down(WeightType::kQ4_1, 20, 576, 1536);
    ExpectNearReference(*kernels, down, true);
    Product head(WeightType::kQ8_0, 3, 1024, 576);
    ExpectNearReference(*kernels, head, false);
  }
}

// The same bits under any cut of a call into rows and panels.
TEST(IsaMatMul, CutsOfACallGiveTheSameBits) {
  for (const CpuKernels* kernels : TestedKernels()) {
    for (const WeightType type :
         {WeightType::kQ4_1, WeightType::kQ8_0, WeightType::kBf16, WeightType::kF32}) {
      Product product(type, 67, 100, 608);
      for (const bool accumulate : {false, true}) {
        const std::vector<float> whole = product.Run(*kernels, accumulate);
        for (const MatMulCut cut : {MatMulCut{1, 100}, MatMulCut{2, 3}, MatMulCut{3, 1},
                                    MatMulCut{16, 2}, MatMulCut{13, 100}, MatMulCut{66, 4}}) {
          const std::vector<float> pieces = product.Run(*kernels, accumulate, cut);
          ASSERT_EQ(std::memcmp(whole.data(), pieces.data(), whole.size() * sizeof(float)), 0)
              << kernels->name << " type " << static_cast<int>(type) << " rows " << cut.rows
              << " panels " << cut.panels;
        }
      }
    }
  }
}

// Rows [first, first + rows) of the product as a call of its own.
std::vector<float> RunRows(const CpuKernels& kernels, const Product& product, bool accumulate,
                           uint32_t first, uint32_t rows) {
  const uint32_t outputs = product.weight.packed.rows;
  const auto before = product.before.begin() + size_t{first} * outputs;
  std::vector<float> out(before, before + size_t{rows} * outputs);
  RunMatMul(kernels, {out.data(), rows, outputs, outputs}, product.x.Rows(first, rows),
            product.weight.packed, accumulate, {});
  return out;
}

// The same bits whatever rows come with a row: for all calls, or, in a table that has other
// arithmetic for few rows, for all calls up to that count and for all above it.
TEST(IsaMatMul, CallsOfOneClassGiveTheSameBits) {
  constexpr uint32_t kRows = 67;
  for (const CpuKernels* kernels : TestedKernels()) {
    ASSERT_LE(kernels->few_rows, 16u);
    for (const WeightType type :
         {WeightType::kQ4_1, WeightType::kQ8_0, WeightType::kBf16, WeightType::kF32}) {
      const Product product(type, kRows, 100, 608);
      for (const bool accumulate : {false, true}) {
        const std::vector<float> many = RunRows(*kernels, product, accumulate, 0, kRows);
        std::vector<float> few;
        for (uint32_t r = 0; r < kRows; ++r) {
          const std::vector<float> row = RunRows(*kernels, product, accumulate, r, 1);
          few.insert(few.end(), row.begin(), row.end());
        }
        for (const uint32_t rows : {1u, 2u, 3u, 4u, 5u, 6u, 7u, 9u, 16u, 17u, 32u, 66u}) {
          const std::vector<float>& expected = rows <= kernels->few_rows ? few : many;
          for (uint32_t first = 0; first + rows <= kRows; first += rows) {
            const std::vector<float> got = RunRows(*kernels, product, accumulate, first, rows);
            ASSERT_EQ(std::memcmp(got.data(), expected.data() + size_t{first} * 100,
                                  got.size() * sizeof(float)),
                      0)
                << kernels->name << " type " << static_cast<int>(type) << ", " << rows
                << " rows from " << first;
          }
        }
      }
    }
  }
}

// Products of few rows with codes are sums of exact integers, added in one order: the same bits in
// every table that has them, whatever instructions made the integers.
TEST(IsaMatMul, FewRowsOfCodesGiveTheSameBitsInEveryTable) {
  for (const WeightType type : {WeightType::kQ4_0, WeightType::kQ4_1, WeightType::kQ5_0,
                                WeightType::kQ8_0, WeightType::kQ4_K}) {
    for (const uint32_t rows : {1u, 2u, 5u, 8u, 11u, 16u}) {
      Product product(type, rows, 100, 768, 7 + rows);
      product.x.row(0)[5] =
          100.0f;  // codes of one row that use all 16 bits, and of one that do not
      product.x.row(rows - 1)[9] = -100.0f;
      std::vector<float> first;
      for (const CpuKernels* kernels : TestedKernels()) {
        if (kernels->prepared_bytes(1, 768) == 0) continue;  // float32 products
        const std::vector<float> got = product.Run(*kernels, true);
        if (first.empty()) first = got;
        ASSERT_EQ(std::memcmp(got.data(), first.data(), first.size() * sizeof(float)), 0)
            << kernels->name << " type " << static_cast<int>(type) << ", " << rows << " rows";
      }
    }
  }
}

// A row that is not a number, or infinite, spoils only itself.
TEST(IsaMatMul, BadRowStaysAlone) {
  for (const CpuKernels* kernels : TestedKernels()) {
    Product product(WeightType::kQ4_1, 18, 32, 64);
    const std::vector<float> clean = product.Run(*kernels, false);
    for (const float bad : {std::nanf(""), INFINITY, -INFINITY}) {
      product.x.row(7)[3] = bad;
      const std::vector<float> got = product.Run(*kernels, false);
      for (size_t i = 0; i < got.size(); ++i) {
        if (i / 32 == 7) {
          EXPECT_FALSE(std::isfinite(got[i])) << kernels->name << " " << bad;
        } else {
          EXPECT_EQ(got[i], clean[i]) << kernels->name << " " << bad;
        }
      }
      // The same row in a call of its own.
      for (const float value : RunRows(*kernels, product, false, 7, 1)) {
        EXPECT_FALSE(std::isfinite(value)) << kernels->name << " " << bad;
      }
    }
  }
}

}  // namespace
}  // namespace corpusd
