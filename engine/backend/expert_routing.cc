#include "engine/backend/expert_routing.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

namespace corpusd {

std::vector<ExpertRows> RouteToExperts(MatrixView logits, uint32_t used) {
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

MatrixView ApplyExpert(Backend& backend, const ExpertInput& input, const Weight& gate_up,
                       const Weight& down, const ExpertRows& routed) {
  const uint32_t few = backend.few_rows();
  const auto count = static_cast<uint32_t>(routed.rows.size());
  // Rows of zeros keep an expert that few rows chose on the arithmetic of the whole call.
  const uint32_t padded = std::max(count, input.x.rows > few ? few + 1 : 1);
  const MatrixView gathered = input.gathered.Rows(0, padded);
  for (uint32_t i = 0; i < padded; ++i) {
    float* const row = gathered.row(i);
    std::memset(row, 0, size_t{gathered.cols} * sizeof(float));
    if (i >= count) continue;
    const float* const source = input.x.row(routed.rows[i]);
    for (uint32_t c = 0; c < gathered.cols; ++c) row[c] = source[c] * routed.factors[i];
  }
  const MatrixView result = input.result.Rows(0, padded);
  backend.MatMul(input.gate_up.Rows(0, padded), gathered, gate_up, false);
  backend.SwiGlu(input.activated.Rows(0, padded), input.gate_up.Rows(0, padded));
  backend.MatMul(result, input.activated.Rows(0, padded), down, false);
  return result.Rows(0, count);
}

void AddExpertRows(MatrixView out, const ExpertRows& routed, MatrixView result) {
  for (uint32_t i = 0; i < result.rows; ++i) {
    float* const target = out.row(routed.rows[i]);
    for (uint32_t c = 0; c < out.cols; ++c) target[c] += result.row(i)[c];
  }
}

}  // namespace corpusd
