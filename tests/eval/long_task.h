// tests/eval/long_task.h -- corpora of documents cut out of real texts, with facts hidden in them
// that the texts do not know, and questions for those facts: `needle` (ten facts, each of a kind of
// its own), `multikey` (many facts of the same two kinds, keyed by words and by codes), `records`
// (nothing but near-identical lines), `facts` (several sentences about each of many people, spread
// over the documents). The same for the same seed and texts on every host. Knows no model; any
// thread.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "store/base/result.h"

namespace corpusd {

enum class LongTask : uint8_t { kNeedle, kMultikey, kRecords, kFacts };

inline constexpr std::array kLongTasks = {LongTask::kNeedle, LongTask::kMultikey,
                                          LongTask::kRecords, LongTask::kFacts};
std::string_view LongTaskName(LongTask task);
// kInvalidArgument, with the names there are.
Result<LongTask> ParseLongTask(std::string_view name);

struct LongDocument {
  std::string path;  // unique in its corpus
  std::string text;
};

struct LongQuestion {
  std::string text;
  std::string answer;   // right is what holds it as a word of its own
  size_t document = 0;  // where the fact stands
  std::string line;     // of that document, which holds the answer; it stands there once
  uint32_t decile = 0;  // its depth in the corpus, 0..9
};

struct LongCorpus {
  LongTask task = LongTask::kNeedle;
  std::string texts;    // the name of its texts; "" for records
  uint64_t length = 0;  // asked for
  uint64_t tokens = 0;  // of all documents, at most that
  uint64_t seed = 0;
  std::vector<LongDocument> documents;
  std::vector<LongQuestion> questions;  // by depth, as many in every decile

  // "multikey-prose", "records".
  std::string Name() const;
};

struct LongCorpusOptions {
  LongTask task = LongTask::kNeedle;
  std::string
      texts_name;  // facts in texts named "code..." and "log..." stand as a remark, an entry
  std::span<const LongDocument> texts;  // whole files; not used by records
  uint64_t length = 0;                  // tokens
  uint64_t seed = 0;
  uint32_t questions = 20;  // needle has ten at most
  std::function<size_t(std::string_view)> count_tokens;
};

// kInvalidArgument if the texts have too few tokens, or the length leaves no room for the facts.
Result<LongCorpus> MakeLongCorpus(const LongCorpusOptions& options);

}  // namespace corpusd
