// engine/decode/candidates.h -- the filters of sampling, each a function on a list of candidate
// tokens: what it keeps, it keeps in one order on every host. Pure; one thread a list.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "store/prefix_hash.h"

namespace corpusd {

struct Candidate {
  float logit = 0;
  TokenId id = 0;
  // In proportion to its probability, the likeliest's being 1.
  double weight = 0;
};

// The larger logit comes first, and of equal ones the lower id.
inline bool ComesBefore(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

// All tokens of [vocabulary] logits by id, weighed at a temperature above 0. REQUIRES:
// !logits.empty().
void WeighAll(std::span<const float> logits, double temperature,
              std::vector<Candidate>* candidates);
// The k first, in order; 0: all, as they are.
void KeepTopK(uint32_t k, std::vector<Candidate>* candidates);
// The nucleus (Holtzman et al. 2020): of the candidates in order the fewest whose weights reach the
// share p of all; at least one. 1: all, as they are.
void KeepTopP(double p, std::vector<Candidate>* candidates);
// Those whose weight is at least the share p of the heaviest's (Nguyen et al. 2024); order stays.
void KeepMinP(double p, std::vector<Candidate>* candidates);
// The candidate at which the sum of weights passes `uniform`, in [0, 1), of the whole. REQUIRES: at
// least one candidate.
TokenId Draw(double uniform, std::span<const Candidate> candidates);

}  // namespace corpusd
