// tests/eval/recall_task.h -- texts with values hidden in them, and questions for those values, in
// the shapes of RULER's needle tests: `passkey` (one needle in filler), `multikey2` (nothing but
// needles: words and numbers), `multikey3` (the same with codes for both), `records`
// (near-identical lines), `pairs` (many needles in filler, asked without any help; what
// train_needle.py trains), `repeats` (the same in one sentence over and over). The same for the
// same seed on every host. Knows no model; any thread.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "store/base/result.h"
#include "tests/eval/seeded_words.h"

namespace corpusd {

enum class RecallTask : uint8_t { kPasskey, kMultikey2, kMultikey3, kRecords, kPairs, kRepeats };

inline constexpr std::array kRecallTasks = {RecallTask::kPasskey,   RecallTask::kMultikey2,
                                            RecallTask::kMultikey3, RecallTask::kRecords,
                                            RecallTask::kPairs,     RecallTask::kRepeats};
// For models that read instructions.
inline constexpr std::array kChatRecallTasks = {RecallTask::kPasskey, RecallTask::kMultikey2,
                                                RecallTask::kMultikey3, RecallTask::kRecords};

std::string_view RecallTaskName(RecallTask task);
// kInvalidArgument, with the names there are.
Result<RecallTask> ParseRecallTask(std::string_view name);

struct RecallQuestion {
  std::string text;          // stands behind the haystack
  std::string answer_start;  // the answer's first words, given to the model: it continues them
  size_t needle = 0;         // in RecallCase::values
  uint32_t decile = 0;       // where the needle stands in the haystack, 0..9
};

struct RecallCase {
  RecallTask task = RecallTask::kPasskey;
  uint32_t length = 0;  // tokens of the whole prompt and its answer, at most
  uint32_t sample = 0;
  std::string haystack;
  std::vector<std::string> values;  // of the needles, in the order of the text
  std::vector<RecallQuestion> questions;
};

struct RecallCaseOptions {
  RecallTask task = RecallTask::kPasskey;
  uint32_t length = 0;
  uint32_t sample = 0;
  uint64_t seed = 0;
  uint32_t haystack_tokens = 0;  // at most
  std::string_view filler;       // of passkey; "": RecallFiller's
  std::function<size_t(std::string_view)> count_tokens;
};

// A passkey's needle stands in the decile sample mod 10. Of the other tasks one needle of every
// decile is asked for, of pairs and repeats five. kInvalidArgument if haystack_tokens leaves no
// room for a needle.
Result<RecallCase> MakeRecallCase(const RecallCaseOptions& options);

// Plain English sentences of `bytes` bytes or a little more.
std::string RecallFiller(uint64_t seed, size_t bytes);

enum class RecallOutcome : uint8_t {
  kHit,        // the answer holds the value asked for, as a word of its own
  kNeighbour,  // not that, but the value of the needle before or behind
  kOther,      // neither, but the value of some other needle
  kMiss,
};

RecallOutcome ClassifyAnswer(const RecallCase& recall, const RecallQuestion& question,
                             std::string_view answer);

}  // namespace corpusd
