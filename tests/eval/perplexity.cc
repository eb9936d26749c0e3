#include "tests/eval/perplexity.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace corpusd {
namespace {

// -log softmax(logits)[target], in double.
double NegativeLogLikelihood(std::span<const float> logits, TokenId target) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - top);
  return top + std::log(sum) - logits[target];
}

}  // namespace

Result<PerplexityReport> MeasurePerplexity(
    ModelSession& session, std::span<const TokenId> tokens, const PerplexityOptions& options,
    const std::function<void(const PerplexityReport&)>& progress) {
  const size_t context = options.context_tokens;
  if (context < 4 || context > session.model().config().context_tokens) {
    return InvalidArgumentError("--ctx must be between 4 and the model's context of " +
                                std::to_string(session.model().config().context_tokens));
  }
  if (tokens.size() < 2 * context) {
    return InvalidArgumentError("the text has " + std::to_string(tokens.size()) +
                                " tokens; perplexity needs at least two windows of " +
                                std::to_string(context));
  }
  size_t windows = tokens.size() / context;
  if (options.windows_max > 0) windows = std::min(windows, options.windows_max);
  PerplexityReport report;
  double sum = 0;
  double sum_of_squares = 0;
  for (size_t w = 0; w < windows; ++w) {
    const auto window = tokens.subspan(w * context, context);
    ASSIGN_OR_RETURN(const auto kv, session.NewSequence(options.kv_format));
    RETURN_IF_ERROR(session.Run(window, *kv, [&](size_t row, std::span<const float> logits) {
      if (row < context / 2 || row + 1 >= context) return;
      const double nll = NegativeLogLikelihood(logits, window[row + 1]);
      sum += nll;
      sum_of_squares += nll * nll;
      ++report.scored_tokens;
    }));
    const auto n = static_cast<double>(report.scored_tokens);
    const double mean = sum / n;
    report.perplexity = std::exp(mean);
    report.standard_error =
        report.perplexity * std::sqrt(std::max(0.0, sum_of_squares / n - mean * mean) / (n - 1));
    report.windows = w + 1;
    progress(report);
  }
  return report;
}

}  // namespace corpusd
