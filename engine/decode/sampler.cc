#include "engine/decode/sampler.h"

#include <algorithm>

namespace corpusd {

double Sampler::NextUniform() { return static_cast<double>(random_.Next() >> 11) * 0x1.0p-53; }

TokenId Sampler::Next(std::span<const float> logits) {
  if (!penalties_.active()) return Choose(logits);
  penalized_.assign(logits.begin(), logits.end());
  penalties_.Apply(penalized_);
  const TokenId id = Choose(penalized_);
  penalties_.Add(id);
  return id;
}

TokenId Sampler::Choose(std::span<const float> logits) {
  if (options_.temperature <= 0) {
    return static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  }
  WeighAll(logits, options_.temperature, &candidates_);
  KeepTopK(options_.top_k, &candidates_);
  KeepTopP(options_.top_p, &candidates_);
  KeepMinP(options_.min_p, &candidates_);
  return Draw(NextUniform(), candidates_);
}

uint64_t SeedOfAnswer(uint64_t seed, uint32_t answer) {
  // The states of neighbouring seeds would be those of one sequence, some steps apart.
  return answer == 0 ? seed : SplitMix(seed ^ (uint64_t{answer} << 32)).Next();
}

}  // namespace corpusd
