// tests/eval/perplexity.h -- the procedures of llama.cpp's llama-perplexity: the text in windows of
// ctx tokens, the second half of each scored. Perplexity is exp of the mean negative
// log-likelihood; the divergence is measured against a base file (logit_base.h). One thread.
#pragma once

#include <functional>
#include <span>
#include <string>

#include "tests/eval/kld_statistics.h"
#include "tests/eval/model_session.h"
#include "tests/eval/window_runner.h"

namespace corpusd {

struct PerplexityOptions {
  uint32_t context_tokens = 2048;
  KvReadback readback;
  size_t windows_max = 0;  // 0: all
  std::string make_base;   // if not empty, the base file to write
};

struct PerplexityReport {
  double perplexity = 0;
  double standard_error = 0;
  size_t windows = 0;
  size_t scored_tokens = 0;
};

// The ids llama-perplexity gives a text: without the last newline, specials' texts as plain text,
// behind a BOS token where the model's file asks for one.
std::vector<TokenId> PerplexityIds(const ModelSession& session, std::string text);

// kInvalidArgument if the text has fewer than two windows, as llama-perplexity asks.
// progress is called after each window.
Result<PerplexityReport> MeasurePerplexity(
    ModelSession& session, std::span<const TokenId> tokens, const PerplexityOptions& options,
    const std::function<void(const PerplexityReport&)>& progress);

// The divergence of the session's model from the base, over the base's own tokens. progress gets
// the report so far and the number of windows done. kInvalidArgument if the vocabulary differs.
Result<KldReport> MeasureKld(ModelSession& session, LogitBaseReader& base,
                             const KvReadback& readback, size_t windows_max,
                             const std::function<void(const KldReport&, size_t)>& progress);

}  // namespace corpusd
