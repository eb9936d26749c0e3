// tests/eval/recall.h -- runs recall tests: every case is asked in every KV format, and the answers
// are counted. What answers is an interface, so that the counting is tested without a model. One
// thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/eval/model_session.h"
#include "tests/eval/recall_statistics.h"

namespace corpusd {

struct RecallOptions {
  std::vector<RecallTask> tasks{kChatRecallTasks.begin(), kChatRecallTasks.end()};
  std::vector<uint32_t> lengths;  // tokens; empty: 1024, doubled up to the model's context
  std::vector<std::string> formats = {"bf16", "int8"};
  uint32_t samples = 10;  // texts a task and length
  uint64_t seed = 1;
  std::string filler;  // of passkey; "": plain sentences made for it
};

class RecallAnswerer {
 public:
  virtual ~RecallAnswerer() = default;
  virtual uint32_t context_tokens() const = 0;
  // Tokens of a prompt that are not its haystack, and of the longest answer: an upper bound.
  virtual uint32_t frame_tokens() const = 0;
  virtual size_t CountTokens(std::string_view text) const = 0;
  // kInvalidArgument if there is no such format.
  virtual Status CheckFormat(const std::string& format) const = 0;
  // One answer for each of the case's questions. The haystack is computed once.
  virtual Result<std::vector<std::string>> Answer(const RecallCase& recall,
                                                  const std::string& format) = 0;
};

// What a model was given: a haystack's tokens, and of each question those behind them and how many
// an answer may have at most.
struct RecallPrompts {
  struct Question {
    std::vector<TokenId> ids;
    uint32_t answer_tokens = 0;
  };
  std::vector<TokenId> haystack;
  std::vector<Question> questions;
};
using RecallPromptSink =
    std::function<void(const RecallCase&, const std::string& format, const RecallPrompts& prompts)>;

// Answers with a model, as the daemon does: the haystack's blocks in the format, behind them the
// question's own in bf16, the chat template around both, the most likely token each time. The
// answer's start stands behind the template. The session must outlive it. The sink, if there is
// one, is told after each case and format.
Result<std::unique_ptr<RecallAnswerer>> MakeModelAnswerer(ModelSession& session,
                                                          RecallPromptSink sink = nullptr);

// progress is called after each case, with its answers [formats][questions].
using RecallProgress = std::function<void(const RecallCase&, const RecallStatistics&,
                                          const std::vector<std::vector<std::string>>& answers)>;

// The lengths that empty options.lengths stands for.
std::vector<uint32_t> DefaultRecallLengths(uint32_t context_tokens);

// kInvalidArgument for lengths beyond the context or too short for a task, and unknown formats.
Result<RecallStatistics> MeasureRecall(RecallAnswerer& answerer, const RecallOptions& options,
                                       const RecallProgress& progress);

}  // namespace corpusd
