#include "tests/eval/kld_statistics.h"

#include <algorithm>
#include <cmath>

#include "store/base/check.h"

namespace corpusd {
namespace {

constexpr size_t kCountForErrors = 10;
constexpr float kNegligible = -16;  // tokens the base holds less likely than e^-16 are left out

// Between the two nearest values, linearly. REQUIRES: sorted, not empty.
double Quantile(const std::vector<float>& sorted, double fraction) {
  const double place = fraction * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  const double rest = place - static_cast<double>(below);
  return (1 - rest) * sorted[below] + rest * sorted[above];
}

Quantiles QuantilesOf(std::vector<float> values) {
  std::sort(values.begin(), values.end());
  const auto at = [&](double fraction) { return Quantile(values, fraction); };
  return {.minimum = values.front(),
          .p0_1 = at(0.001),
          .p1 = at(0.01),
          .p5 = at(0.05),
          .p10 = at(0.1),
          .p25 = at(0.25),
          .median = at(0.5),
          .p75 = at(0.75),
          .p90 = at(0.9),
          .p95 = at(0.95),
          .p99 = at(0.99),
          .p99_9 = at(0.999),
          .maximum = values.back()};
}

// log(sum(exp(logits))), in double.
double LogSumExp(std::span<const float> logits) {
  const float top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - top);
  return top + std::log(sum);
}

}  // namespace

double NegativeLogLikelihood(std::span<const float> logits, TokenId target) {
  return LogSumExp(logits) - logits[target];
}

Estimate KldStatistics::Sum::Mean(size_t count) const {
  const auto n = static_cast<double>(count);
  const double mean = first / n;
  const double variance = second / n - mean * mean;
  const bool known = count > kCountForErrors && variance > 0;
  return {mean, known ? std::sqrt(variance / (n - 1)) : 0};
}

void KldStatistics::Add(std::span<const float> logits, const LogitRow& base, TokenId target) {
  CHECK(base.codes.size() >= logits.size() && target < logits.size()) << target;
  const double normalizer = LogSumExp(logits);
  double divergence = 0;
  uint32_t base_top = 0;
  for (uint32_t i = 0; i < logits.size(); ++i) {
    // The first of several equal ones, as with the logits below.
    if (base.codes[i] > base.codes[base_top]) base_top = i;
    const float log_base = base.LogProbability(i);
    if (log_base <= kNegligible) continue;
    divergence += std::exp(log_base) * (log_base - (logits[i] - normalizer));
  }
  const auto top = std::max_element(logits.begin(), logits.end()) - logits.begin();
  if (static_cast<uint32_t>(top) == base_top) ++same_top_;

  const double nll = normalizer - logits[target];
  const double base_nll = -base.LogProbability(target);
  nll_.Add(nll);
  base_nll_.Add(base_nll);
  nll_product_ += nll * base_nll;
  kld_.Add(divergence);
  const double delta = std::exp(-nll) - std::exp(-base_nll);
  delta_.Add(delta);
  squared_delta_.Add(delta * delta);
  klds_.push_back(static_cast<float>(divergence));
  deltas_.push_back(static_cast<float>(delta));
}

KldReport KldStatistics::Report() const {
  const size_t count = klds_.size();
  CHECK(count > 0) << "nothing was scored";
  const auto n = static_cast<double>(count);
  KldReport report;
  report.scored_tokens = count;
  const Estimate nll = nll_.Mean(count);
  const Estimate base_nll = base_nll_.Mean(count);
  const double covariance =
      count < kCountForErrors
          ? 0
          : (nll_product_ / n - nll_.first / n * (base_nll_.first / n)) / (n - 1);
  const auto combined = [](double a, double b, double ab) {
    return std::sqrt(std::max(0.0, a * a + b * b - 2 * ab));
  };
  report.perplexity = {std::exp(nll.value), std::exp(nll.value) * nll.error};
  report.base_perplexity = {std::exp(base_nll.value), std::exp(base_nll.value) * base_nll.error};
  const double errors = nll.error * base_nll.error;
  report.correlation = errors > 0 ? covariance / errors : 0;
  report.log_ratio = {nll.value - base_nll.value, combined(nll.error, base_nll.error, covariance)};
  report.ratio.value = std::exp(report.log_ratio.value);
  report.ratio.error = report.ratio.value * report.log_ratio.error;
  report.difference = {
      report.perplexity.value - report.base_perplexity.value,
      combined(report.perplexity.error, report.base_perplexity.error,
               report.perplexity.value * report.base_perplexity.value * covariance)};
  report.kld = kld_.Mean(count);
  report.kld_quantiles = QuantilesOf(klds_);
  report.delta_p = delta_.Mean(count);
  const Estimate square = squared_delta_.Mean(count);
  const double rms = std::sqrt(square.value);
  report.delta_p_rms = {rms, rms > 0 ? 0.5 / rms * square.error : 0};
  report.delta_p_quantiles = QuantilesOf(deltas_);
  const double same = static_cast<double>(same_top_) / n;
  report.same_top = {same, count > 1 ? std::sqrt(same * (1 - same) / (n - 1)) : 0};
  return report;
}

}  // namespace corpusd
