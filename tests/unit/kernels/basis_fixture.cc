#include "tests/unit/kernels/basis_fixture.h"

#include <cmath>
#include <cstddef>
#include <random>

#include "kernels/reference/kv_tile.h"

namespace corpusd {
namespace {

// Numbers in [-1, 1) that are the same on every machine and library.
class Fractions {
 public:
  explicit Fractions(uint32_t seed) : random_(seed) {}
  double Next() { return static_cast<double>(random_() >> 8) / (1 << 23) - 1.0; }

 private:
  std::mt19937 random_;
};

using Matrix = std::vector<double>;

// The reflection that turns a random vector round: symmetric, its own inverse.
Matrix Reflection(uint32_t n, Fractions& random) {
  std::vector<double> v(n);
  double squares = 0;
  for (double& x : v) {
    x = random.Next();
    squares += x * x;
  }
  Matrix m(size_t{n} * n);
  for (uint32_t i = 0; i < n; ++i) {
    for (uint32_t j = 0; j < n; ++j) {
      m[size_t{i} * n + j] = (i == j ? 1.0 : 0.0) - 2 * v[i] * v[j] / squares;
    }
  }
  return m;
}

// a * diag(scale) * b
Matrix Product(const Matrix& a, const std::vector<double>& scale, const Matrix& b, uint32_t n) {
  Matrix m(size_t{n} * n);
  for (uint32_t i = 0; i < n; ++i) {
    for (uint32_t k = 0; k < n; ++k) {
      const double left = a[size_t{i} * n + k] * scale[k];
      for (uint32_t j = 0; j < n; ++j) m[size_t{i} * n + j] += left * b[size_t{k} * n + j];
    }
  }
  return m;
}

std::vector<float> Rounded(const Matrix& m) { return {m.begin(), m.end()}; }

}  // namespace

TestBasis::TestBasis(uint32_t kv_heads, uint32_t head_dim, uint32_t seed, float feedback) {
  for (uint32_t h = 0; h < kv_heads; ++h) {
    const KvCoordinates key = Make(head_dim, seed + 2 * h, feedback);
    bases_.push_back({key, Make(head_dim, seed + 2 * h + 1, feedback)});
  }
}

const float* TestBasis::Keep(std::vector<float> values) {
  arrays_.push_back(std::move(values));
  return arrays_.back().data();
}

KvCoordinates TestBasis::Make(uint32_t n, uint32_t seed, float feedback) {
  Fractions random(seed);
  const Matrix left = Reflection(n, random);
  const Matrix right = Reflection(n, random);
  std::vector<double> scale(n);
  std::vector<double> inverse_scale(n);
  for (uint32_t i = 0; i < n; ++i) {
    scale[i] = 1.25 + 0.75 * random.Next();
    inverse_scale[i] = 1 / scale[i];
  }
  const Matrix forward = Product(left, scale, right, n);
  const Matrix inverse = Product(right, inverse_scale, left, n);
  Matrix query(size_t{n} * n);
  Matrix pull(size_t{n} * n);
  std::vector<double> mean(n);
  std::vector<double> mean_coordinates(n);
  std::vector<double> weight(n);
  for (uint32_t i = 0; i < n; ++i) {
    mean[i] = random.Next();
    weight[i] = 1.0 + 0.5 * random.Next();
    for (uint32_t j = 0; j < n; ++j) {
      query[size_t{i} * n + j] = inverse[size_t{j} * n + i];
      if (j > i)
        pull[size_t{i} * n + j] = feedback * random.Next() / std::sqrt(static_cast<double>(n));
    }
  }
  for (uint32_t i = 0; i < n; ++i) {
    for (uint32_t j = 0; j < n; ++j) mean_coordinates[j] += mean[i] * forward[size_t{i} * n + j];
  }
  const float* const rounded_query = Keep(Rounded(query));
  std::vector<uint16_t>& pairs = pairs_.emplace_back(size_t{n} * n);
  QueryPairs(pairs.data(), rounded_query, n);
  return {.forward = Keep(Rounded(forward)),
          .inverse = Keep(Rounded(inverse)),
          .query = rounded_query,
          .query_pairs = pairs.data(),
          .mean = Keep(Rounded(mean)),
          .mean_coordinates = Keep(Rounded(mean_coordinates)),
          .feedback = Keep(Rounded(pull)),
          .weight = Keep(Rounded(weight))};
}

}  // namespace corpusd
