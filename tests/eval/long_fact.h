// tests/eval/long_fact.h -- the facts that long_task.h hides: a sentence, a question for it and the
// answer. Made up from one seed, no two with the same key. Text only; one thread.
#pragma once

#include <string>
#include <vector>

#include "tests/eval/long_task.h"
#include "tests/eval/seeded_words.h"

namespace corpusd {

struct LongFact {
  std::string sentence, question, answer;
  size_t subject = 0;  // facts of one subject belong into different documents
};

// `count` facts of the task, in the order in which they are to stand; fewer where the task knows no
// more. Any of them may be asked for.
std::vector<LongFact> MakeLongFacts(LongTask task, size_t count, SeededRandom& random);

}  // namespace corpusd
