// engine/decode/token_penalties.h -- makes tokens less likely that were said before. One answer's;
// one thread.
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <unordered_map>

#include "engine/decode/sampling.h"
#include "store/prefix_hash.h"

namespace corpusd {

class TokenPenalties {
 public:
  // before: the question's tokens, which the repetition penalty counts as well. The corpus is not
  // counted: answers quote it.
  TokenPenalties(const SamplingOptions& options, std::span<const TokenId> before);

  // Whether Apply changes anything, whatever the answer has.
  bool active() const;
  // A token of the answer.
  void Add(TokenId id);
  // [vocabulary] logits. First the repetition penalty (Keskar et al. 2019), once for each token of
  // the window; then presence and frequency penalty over the answer, as OpenAI defines them.
  void Apply(std::span<float> logits) const;

 private:
  void AddToWindow(TokenId id);

  const SamplingOptions options_;
  std::deque<TokenId> window_;                       // oldest first
  std::unordered_map<TokenId, uint32_t> of_window_;  // how often each is there
  std::unordered_map<TokenId, uint32_t> of_answer_;
};

}  // namespace corpusd
