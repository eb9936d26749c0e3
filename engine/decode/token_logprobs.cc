#include "engine/decode/token_logprobs.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "engine/decode/candidates.h"

namespace corpusd {

TokenLogprob LogprobOf(std::span<const float> logits, TokenId id, uint32_t top,
                       const Tokenizer& tokenizer) {
  std::vector<Candidate> candidates;
  WeighAll(logits, 1, &candidates);
  double sum = 0;
  for (const Candidate& candidate : candidates) sum += candidate.weight;
  const double whole = *std::max_element(logits.begin(), logits.end()) + std::log(sum);
  const auto entry = [&](TokenId token) {
    return TokenLogprob{token, tokenizer.Decode({&token, 1}), logits[token] - whole, {}};
  };
  TokenLogprob logprob = entry(id);
  if (top == 0) return logprob;
  KeepTopK(top, &candidates);
  for (const Candidate& candidate : candidates) logprob.top.push_back(entry(candidate.id));
  return logprob;
}

}  // namespace corpusd
