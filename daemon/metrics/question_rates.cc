#include "daemon/metrics/question_rates.h"

#include <algorithm>

namespace corpusd {
namespace {

// A daemon with more corpora has no means of the others.
constexpr size_t kCorporaMax = 4096;
// Of shorter prompts the fixed cost of a pass is most.
constexpr uint64_t kPromptTokensMin = 128;

}  // namespace

void QuestionRates::OnQuestion(std::string_view corpus, const QuestionReport& report) {
  if (report.completion_tokens == 0) return;  // cancelled before there was a token
  const double seconds = std::max(0.0, report.first_token_ms - report.queue_ms) / 1e3;
  const std::lock_guard lock(mutex_);
  if (corpus.empty()) {
    const uint64_t computed = report.prompt_tokens - report.cached_tokens;
    if (computed < kPromptTokensMin) return;
    prompt_tokens_ += computed;
    prompt_seconds_ += seconds;
    return;
  }
  if (sums_.size() >= kCorporaMax && !sums_.contains(corpus)) return;
  Mean& sum = sums_[std::string(corpus)];
  sum.seconds += seconds;
  ++sum.questions;
}

QuestionRates::Mean QuestionRates::OfCorpus(std::string_view corpus) const {
  const std::lock_guard lock(mutex_);
  const auto sum = sums_.find(corpus);
  if (sum == sums_.end()) return {};
  return {sum->second.seconds / static_cast<double>(sum->second.questions), sum->second.questions};
}

double QuestionRates::PromptTokensPerSecond() const {
  const std::lock_guard lock(mutex_);
  return prompt_seconds_ > 0 ? static_cast<double>(prompt_tokens_) / prompt_seconds_ : 0;
}

}  // namespace corpusd
