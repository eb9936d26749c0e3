// engine/decode/sampler.h -- logits in, one token out. Deterministic: the same logits, options and
// seed give the same tokens on every host. In this order:
//   1. penalties on the logits: repetition, then presence and frequency (token_penalties.h)
//   2. temperature; 0 takes the largest logit, ties to the lower id, and ends here
//   3. top_k   4. top_p   5. min_p, each of what the one before has left (candidates.h)
//   6. one of the rest by its probability
// One thread per Sampler.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/decode/candidates.h"
#include "engine/decode/sampling.h"
#include "engine/decode/token_penalties.h"
#include "store/base/split_mix.h"

namespace corpusd {

class Sampler {
 public:
  // options: as CheckAnswerOptions allows them. before: as of TokenPenalties.
  explicit Sampler(const SamplingOptions& options, std::span<const TokenId> before = {})
      : options_(options), penalties_(options, before), random_(options.seed) {}
  // Takes the token as a part of the answer. REQUIRES: !logits.empty().
  TokenId Next(std::span<const float> logits);

 private:
  double NextUniform();  // in [0, 1)
  TokenId Choose(std::span<const float> logits);

  const SamplingOptions options_;
  TokenPenalties penalties_;
  SplitMix random_;
  // Reused between calls.
  std::vector<float> penalized_;
  std::vector<Candidate> candidates_;
};

// Of the answers to one question: the first has the seed itself.
uint64_t SeedOfAnswer(uint64_t seed, uint32_t answer);

}  // namespace corpusd
