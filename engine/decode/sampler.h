// engine/decode/sampler.h -- logits in, one token out. Deterministic: the same logits, options and
// seed give the same tokens on every host. One thread per Sampler.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "store/base/split_mix.h"
#include "store/prefix_hash.h"

namespace corpusd {

struct SamplerOptions {
  double temperature = 0;  // 0: the largest logit, ties to the lower id
  double top_p = 1;        // nucleus: the fewest tokens whose probabilities reach it
  uint64_t seed = 0;
};

class Sampler {
 public:
  explicit Sampler(const SamplerOptions& options) : options_(options), random_(options.seed) {}
  // REQUIRES: !logits.empty().
  TokenId Next(std::span<const float> logits);

 private:
  double NextUniform();  // in [0, 1)

  SamplerOptions options_;
  SplitMix random_;
  std::vector<std::pair<float, TokenId>> sorted_;  // reused between calls
};

}  // namespace corpusd
