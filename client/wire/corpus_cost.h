// client/wire/corpus_cost.h -- what a corpus costs to build, to keep and to ask, and when that is
// less than asking without it: arithmetic on prices and on rates that were measured. The daemon
// reckons it for corpora that it has, corpusctl for those that are planned. Pure; any thread.
#pragma once

#include <cstdint>

#include "corpusd/v1/corpusd.pb.h"

namespace corpusd {

// Of an ordinary question with its chat frame: what is prefilled for it with a corpus, too.
inline constexpr uint64_t kQuestionTokens = 64;
// Of a segmented corpus, computed anew for each question.
inline constexpr uint64_t kRecomputedTokens = 64;

struct CostInputs {
  uint64_t tokens = 0;
  uint64_t exact_tokens_max = 0;  // that the model can see at once
  uint64_t disk_bytes = 0;
  bool segmented = false;
  double build_seconds = 0;         // 0: not known
  double prefill_tokens_per_s = 0;  // of corpora; 0: not known
  double question_seconds = 0;      // the mean of those measured, to the first token
  uint64_t questions = 0;           // that were measured; 0: estimated from the rates
};

v1::CorpusCost CostOf(const v1::Economics& economics, const CostInputs& inputs);

}  // namespace corpusd
