#include "tests/eval/perplexity.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace corpusd {
namespace {

// With the token that stands at the start of every window while it is computed, if the model wants
// one.
std::vector<TokenId> Computed(const ModelSession& session, std::span<const TokenId> window) {
  std::vector<TokenId> tokens(window.begin(), window.end());
  if (const auto begin = session.source().StartToken()) tokens.front() = *begin;
  return tokens;
}

Status CheckContext(const ModelSession& session, size_t context) {
  if (context >= 4 && context <= session.model().config().context_tokens) return OkStatus();
  return InvalidArgumentError("windows of " + std::to_string(context) +
                              " tokens: --ctx must be between 4 and the model's context of " +
                              std::to_string(session.model().config().context_tokens));
}

}  // namespace

std::vector<TokenId> PerplexityIds(const ModelSession& session, std::string text) {
  if (text.ends_with('\n')) text.pop_back();
  std::vector<TokenId> ids;
  if (const auto begin = session.source().StartToken()) ids.push_back(*begin);
  session.tokenizer().Encode(text, false, &ids, TextPlace::kStart);
  return ids;
}

Result<PerplexityReport> MeasurePerplexity(
    ModelSession& session, std::span<const TokenId> tokens, const PerplexityOptions& options,
    const std::function<void(const PerplexityReport&)>& progress) {
  const size_t context = options.context_tokens;
  RETURN_IF_ERROR(CheckContext(session, context));
  RETURN_IF_ERROR(CheckReadback(options.readback));
  if (tokens.size() < 2 * context) {
    return InvalidArgumentError("the text has " + std::to_string(tokens.size()) +
                                " tokens; perplexity needs at least two windows of " +
                                std::to_string(context));
  }
  size_t windows = tokens.size() / context;
  if (options.windows_max > 0) windows = std::min(windows, options.windows_max);
  const LogitBaseShape shape{options.context_tokens, session.model().config().vocabulary,
                             static_cast<uint32_t>(windows)};
  std::unique_ptr<LogitBaseWriter> base;
  if (!options.make_base.empty()) {
    ASSIGN_OR_RETURN(
        base, LogitBaseWriter::Create(options.make_base, shape, tokens.first(windows * context)));
  }
  PerplexityReport report;
  double sum = 0;
  double sum_of_squares = 0;
  for (size_t w = 0; w < windows; ++w) {
    const auto window = tokens.subspan(w * context, context);
    RETURN_IF_ERROR(RunWindow(session, Computed(session, window), options.readback,
                              [&](size_t row, std::span<const float> logits) {
                                if (row < shape.first_scored() || row + 1 >= context) return;
                                const double nll = NegativeLogLikelihood(logits, window[row + 1]);
                                sum += nll;
                                sum_of_squares += nll * nll;
                                ++report.scored_tokens;
                                if (base) base->Add(logits);
                              }));
    const auto n = static_cast<double>(report.scored_tokens);
    const double mean = sum / n;
    report.perplexity = std::exp(mean);
    report.standard_error =
        report.perplexity * std::sqrt(std::max(0.0, sum_of_squares / n - mean * mean) / (n - 1));
    report.windows = w + 1;
    progress(report);
  }
  if (base) RETURN_IF_ERROR(base->Finish());
  return report;
}

Result<KldReport> MeasureKld(ModelSession& session, LogitBaseReader& base,
                             const KvReadback& readback, size_t windows_max,
                             const std::function<void(const KldReport&, size_t)>& progress) {
  const LogitBaseShape& shape = base.shape();
  RETURN_IF_ERROR(CheckContext(session, shape.context_tokens));
  RETURN_IF_ERROR(CheckReadback(readback));
  if (shape.vocabulary != session.model().config().vocabulary) {
    return InvalidArgumentError("the base has a vocabulary of " + std::to_string(shape.vocabulary) +
                                ", the model one of " +
                                std::to_string(session.model().config().vocabulary) +
                                ": a base serves the model that made it, and formats of it");
  }
  size_t windows = shape.windows;
  if (windows_max > 0) windows = std::min(windows, windows_max);
  KldStatistics statistics;
  Status read;
  for (size_t w = 0; w < windows; ++w) {
    const auto window = base.window(static_cast<uint32_t>(w));
    RETURN_IF_ERROR(RunWindow(session, Computed(session, window), readback,
                              [&](size_t row, std::span<const float> logits) {
                                if (row < shape.first_scored() || row + 1 >= shape.context_tokens ||
                                    !read.ok()) {
                                  return;
                                }
                                const auto expected = base.Next();
                                if (!expected.ok()) {
                                  read = expected.status();
                                  return;
                                }
                                statistics.Add(logits, *expected, window[row + 1]);
                              }));
    RETURN_IF_ERROR(read);
    progress(statistics.Report(), w + 1);
  }
  return statistics.Report();
}

}  // namespace corpusd
