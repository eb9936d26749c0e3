// tests/eval/window_runner.h -- one window of tokens through a model whose keys and values are read
// back through a KV format, the current tokens' own included; the first `sinks` tokens and the
// unfinished tail may be kept exact (bf16) instead. One thread.
#pragma once

#include <functional>
#include <span>
#include <string>

#include "tests/eval/model_session.h"

namespace corpusd {

struct KvReadback {
  std::string format = "bf16";
  uint32_t sinks = 0;  // the first tokens stay bf16; at most kBlockTokens
  // 0, or a multiple of kBlockTokens: tokens stay bf16 until so many are complete, then they are
  // coded, once. So a query finds 1 to `tail` exact tokens before it, itself included.
  uint32_t tail = 0;
};

// kInvalidArgument, with the rule, if sinks or tail is not as above.
Status CheckReadback(const KvReadback& readback);

// rows gets the logits behind every token of the window in order. REQUIRES: CheckReadback.
Status RunWindow(ModelSession& session, std::span<const TokenId> window, const KvReadback& readback,
                 const std::function<void(size_t row, std::span<const float> logits)>& rows);

}  // namespace corpusd
