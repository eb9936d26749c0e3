// engine/decode/question_runner.h -- one question over a sequence: prefill of its tokens, then the
// next-token loop of its answers, all of which begin with what was computed once. Knows no store.
// One thread; its tokens after the first go through the batcher.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "engine/decode/decode_batcher.h"
#include "engine/decode/prompt_report.h"
#include "engine/decode/sampling.h"
#include "engine/prefill/prefill_runner.h"
#include "engine/tokenizer/chat_template.h"
#include "engine/tokenizer/tokenizer.h"

namespace corpusd {

// Looks over an answer's shoulder, and may change what it attends to. Called by the answer's
// thread. Of several answers to a question it sees the first.
class AnswerWatcher {
 public:
  virtual ~AnswerWatcher() = default;
  // Gets the queries of every pass: of the prompt's last piece, then of each token.
  virtual QueryTap& tap() = 0;
  // A pass is done, and its queries are in the tap. kv may get other shared pages. Ends the answer
  // if it fails.
  virtual Status AfterPass(KvSequence& kv) = 0;
};

struct GenerationRequest {
  std::span<const TokenId> prompt;    // follows what the sequence holds
  std::span<const TokenId> question;  // what of the prompt the repetition penalty counts
  uint32_t max_tokens = 128;          // of each answer
  AnswerOptions answers;
  AnswerWatcher* watcher = nullptr;
  // Told before the prompt and after each piece of it was computed; may be empty. What the sequence
  // held before counts as cached.
  std::function<void(const PromptProgress&)> on_prompt;
};

struct GenerationReport {
  std::vector<GeneratedAnswer> answers;  // as many as asked for, at least one
  double queue_ms = 0;                   // until the first turn
  double first_token_ms = 0;             // from the call
  double decode_seconds = 0;             // after the first token
};

// sink gets the texts as complete UTF-8 pieces; false cancels. If the sequence follows a prefetch,
// its errors end the call before the sink was called once, and the sequence must be thrown away.
// REQUIRES: options that CheckAnswerOptions allows.
Result<GenerationReport> Generate(const ComputeContext& context, DecodeBatcher& batcher,
                                  const Tokenizer& tokenizer, const ChatTemplate& chat,
                                  KvSequence& kv, const GenerationRequest& request,
                                  const AnswerSink& sink, const std::stop_token& stop);

}  // namespace corpusd
