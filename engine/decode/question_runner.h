// engine/decode/question_runner.h -- one question over a sequence: prefill of its tokens, then the
// next-token loop. Knows no store. One thread; its tokens after the first go through
// the batcher.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>

#include "engine/decode/decode_batcher.h"
#include "engine/decode/sampler.h"
#include "engine/prefill/prefill_runner.h"
#include "engine/tokenizer/chat_template.h"
#include "engine/tokenizer/tokenizer.h"

namespace corpusd {

// Looks over an answer's shoulder, and may change what it attends to. Called by the answer's
// thread.
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
  std::span<const TokenId> prompt;  // follows what the sequence holds
  uint32_t max_tokens = 128;
  SamplerOptions sampler;
  AnswerWatcher* watcher = nullptr;
};

struct GenerationReport {
  std::string text;
  std::string finish_reason;  // "stop", "length", "cancelled"
  uint32_t tokens = 0;
  double queue_ms = 0;        // until the first turn
  double first_token_ms = 0;  // from the call
  double decode_seconds = 0;  // after the first token
};

// sink gets the text as complete UTF-8 pieces; false cancels. If the sequence follows a prefetch,
// its errors end the call before the sink was called once, and the sequence must be thrown away.
Result<GenerationReport> Generate(const ComputeContext& context, DecodeBatcher& batcher,
                                  const Tokenizer& tokenizer, const ChatTemplate& chat,
                                  KvSequence& kv, const GenerationRequest& request,
                                  const std::function<bool(std::string_view)>& sink,
                                  const std::stop_token& stop);

}  // namespace corpusd
