// The operations of Backend that can be put together from others.
#include "engine/backend/backend.h"

#include <cmath>
#include <cstring>
#include <vector>

#include "engine/backend/expert_routing.h"
#include "store/base/check.h"

namespace corpusd {
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

void Backend::CopyMatrix(MatrixView target, MatrixView source) {
  CHECK(target.rows == source.rows && target.cols == source.cols)
      << target.rows << " x " << target.cols;
  for (uint32_t r = 0; r < source.rows; ++r) {
    std::memcpy(target.row(r), source.row(r), size_t{source.cols} * sizeof(float));
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
  const std::vector<ExpertRows> routed = RouteToExperts(input.logits, input.used);
  for (size_t e = 0; e < routed.size(); ++e) {
    if (routed[e].rows.empty()) continue;
    AddExpertRows(out, routed[e], ApplyExpert(*this, input, input.experts[e], routed[e]));
  }
}

}  // namespace corpusd
