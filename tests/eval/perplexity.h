// tests/eval/perplexity.h -- the procedure of llama.cpp's llama-perplexity: the text in windows of
// ctx tokens, the second half of each scored, exp of the mean negative log-likelihood and its
// standard error.
#pragma once

#include <functional>
#include <span>
#include <string>

#include "tests/eval/model_session.h"

namespace corpusd {

struct PerplexityOptions {
  uint32_t context_tokens = 2048;
  std::string kv_format = "bf16";
  size_t windows_max = 0;  // 0: all
};

struct PerplexityReport {
  double perplexity = 0;
  double standard_error = 0;
  size_t windows = 0;
  size_t scored_tokens = 0;
};

// kInvalidArgument if the text has fewer than two windows, as llama-perplexity asks.
// progress is called after each window.
Result<PerplexityReport> MeasurePerplexity(
    ModelSession& session, std::span<const TokenId> tokens, const PerplexityOptions& options,
    const std::function<void(const PerplexityReport&)>& progress);

}  // namespace corpusd
