// The operations of Backend that can be put together from others.
#include "engine/backend/backend.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "store/base/check.h"

namespace corpusd {
namespace {

// The rows that go through one expert, and what each is multiplied by first.
struct ExpertRows {
  std::vector<uint32_t> rows;
  std::vector<float> factors;
};

std::vector<ExpertRows> Route(MatrixView logits, uint32_t used) {
  std::vector<ExpertRows> routed(logits.cols);
  std::vector<uint32_t> order(logits.cols);
  for (uint32_t r = 0; r < logits.rows; ++r) {
    const float* const row = logits.row(r);
    std::iota(order.begin(), order.end(), 0u);
    // The index decides between equal logits, and between any two if a logit is no number.
    std::partial_sort(order.begin(), order.begin() + used, order.end(),
                      [&](uint32_t a, uint32_t b) {
                        const float x = std::isnan(row[a]) ? -INFINITY : row[a];
                        const float y = std::isnan(row[b]) ? -INFINITY : row[b];
                        return x != y ? x > y : a < b;
                      });
    for (uint32_t i = 0; i < used; ++i) {
      ExpertRows& expert = routed[order[i]];
      expert.rows.push_back(r);
      expert.factors.push_back(static_cast<float>(1 / (1 + std::exp(-double{row[order[i]]}))));
    }
  }
  return routed;
}

}  // namespace

void Backend::HeadNorm(MatrixView x, uint32_t head_dim, const float* gain, float epsilon) {
  CHECK(x.cols % head_dim == 0) << x.cols << " columns, heads of " << head_dim;
  for (uint32_t r = 0; r < x.rows; ++r) {
    const MatrixView heads{x.row(r), x.cols / head_dim, head_dim, head_dim};
    RmsNorm(heads, heads, gain, epsilon);
  }
}

void Backend::ScaleRows(MatrixView x, std::span<const float> factors) {
  CHECK(factors.size() == x.rows) << factors.size() << " factors of " << x.rows << " rows";
  for (uint32_t r = 0; r < x.rows; ++r) {
    for (uint32_t c = 0; c < x.cols; ++c) x.row(r)[c] *= factors[r];
  }
}

void Backend::AddBias(MatrixView x, const float* bias) {
  for (uint32_t r = 0; r < x.rows; ++r) {
    for (uint32_t c = 0; c < x.cols; ++c) x.row(r)[c] += bias[c];
  }
}

void Backend::Add(MatrixView x, MatrixView y) {
  CHECK(x.rows == y.rows && x.cols == y.cols) << x.rows << " x " << x.cols;
  for (uint32_t r = 0; r < x.rows; ++r) {
    for (uint32_t c = 0; c < x.cols; ++c) x.row(r)[c] += y.row(r)[c];
  }
}

// gelu(x) = x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) (Hendrycks and Gimpel 2016, arXiv
// 1606.08415).
void Backend::GeGlu(MatrixView out, MatrixView gate_up) {
  constexpr float kRoot = 0.7978845608F;  // sqrt(2 / pi)
  for (uint32_t r = 0; r < out.rows; ++r) {
    const float* const gate = gate_up.row(r);
    for (uint32_t c = 0; c < out.cols; ++c) {
      const float g = gate[c];
      const float inner = kRoot * (g + 0.044715F * g * g * g);
      out.row(r)[c] = 0.5F * g * (1 + std::tanh(inner)) * gate[out.cols + c];
    }
  }
}

void Backend::MixExperts(MatrixView out, const ExpertInput& input) {
  const uint32_t n = input.x.rows;
  CHECK(out.rows == n && input.logits.rows == n && input.logits.cols == input.experts.size() &&
        input.used <= input.logits.cols && input.gathered.rows >= n)
      << n << " rows, " << input.experts.size() << " experts";
  const auto status = Synchronize();  // the logits are read here
  CHECK(status.ok()) << status.ToString();
  const std::vector<ExpertRows> routed = Route(input.logits, input.used);
  const uint32_t rows_min = n > few_rows() ? few_rows() + 1 : 1;
  for (size_t e = 0; e < routed.size(); ++e) {
    const ExpertRows& expert = routed[e];
    if (expert.rows.empty()) continue;
    const auto count = static_cast<uint32_t>(expert.rows.size());
    // Rows of zeros keep an expert that few rows chose on the arithmetic of the whole call.
    const uint32_t padded = std::max(count, rows_min);
    const MatrixView gathered = input.gathered.Rows(0, padded);
    for (uint32_t i = 0; i < padded; ++i) {
      float* const row = gathered.row(i);
      std::memset(row, 0, size_t{gathered.cols} * sizeof(float));
      if (i >= count) continue;
      const float* const source = input.x.row(expert.rows[i]);
      for (uint32_t c = 0; c < gathered.cols; ++c) row[c] = source[c] * expert.factors[i];
    }
    const MatrixView result = input.result.Rows(0, padded);
    MatMul(input.gate_up.Rows(0, padded), gathered, *input.experts[e].gate_up, false);
    SwiGlu(input.activated.Rows(0, padded), input.gate_up.Rows(0, padded));
    MatMul(result, input.activated.Rows(0, padded), *input.experts[e].down, false);
    for (uint32_t i = 0; i < count; ++i) {
      float* const target = out.row(expert.rows[i]);
      for (uint32_t c = 0; c < out.cols; ++c) target[c] += result.row(i)[c];
    }
  }
}

}  // namespace corpusd
