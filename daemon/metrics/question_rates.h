// daemon/metrics/question_rates.h -- QuestionRates: how long questions computed, by corpus, and how
// fast prompts without one did, since the start: what costs are reckoned from. Keeps sums, no
// question. Thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>

#include "engine/engine.h"

namespace corpusd {

class QuestionRates {
 public:
  // corpus: "": none. Its times include those that it waited, which do not count.
  void OnQuestion(std::string_view corpus, const QuestionReport& report);

  struct Mean {
    double seconds = 0;      // from its turn to the first token of its answer
    uint64_t questions = 0;  // 0: none was asked yet
  };
  Mean OfCorpus(std::string_view corpus) const;
  // Of prompts without a corpus; 0: not known.
  double PromptTokensPerSecond() const;

 private:
  mutable std::mutex mutex_;
  std::map<std::string, Mean, std::less<>> sums_;  // by corpus; seconds of all its questions
  uint64_t prompt_tokens_ = 0;
  double prompt_seconds_ = 0;
};

}  // namespace corpusd
