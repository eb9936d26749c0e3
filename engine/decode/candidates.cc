#include "engine/decode/candidates.h"

#include <algorithm>
#include <cmath>

namespace corpusd {
namespace {

// A nucleus is a few tokens nearly always: so many are sorted first, then four times as many.
constexpr size_t kSortedFirst = 64;

double HeaviestOf(std::span<const Candidate> candidates) {
  double heaviest = 0;
  for (const Candidate& candidate : candidates) heaviest = std::max(heaviest, candidate.weight);
  return heaviest;
}

double SumOf(std::span<const Candidate> candidates) {
  double sum = 0;
  for (const Candidate& candidate : candidates) sum += candidate.weight;
  return sum;
}

}  // namespace

void WeighAll(std::span<const float> logits, double temperature,
              std::vector<Candidate>* candidates) {
  const double top = *std::max_element(logits.begin(), logits.end());
  candidates->clear();
  for (size_t i = 0; i < logits.size(); ++i) {
    candidates->push_back(
        {logits[i], static_cast<TokenId>(i), std::exp((logits[i] - top) / temperature)});
  }
}

void KeepTopK(uint32_t k, std::vector<Candidate>* candidates) {
  if (k == 0) return;
  const size_t kept = std::min<size_t>(k, candidates->size());
  std::partial_sort(candidates->begin(), candidates->begin() + static_cast<ptrdiff_t>(kept),
                    candidates->end(), ComesBefore);
  candidates->resize(kept);
}

void KeepTopP(double p, std::vector<Candidate>* candidates) {
  if (p >= 1) return;
  const double nucleus = p * SumOf(*candidates);
  double sum = 0;
  size_t kept = 0;
  for (size_t sorted = 0; kept < candidates->size();) {
    if (kept == sorted) {
      const auto from = candidates->begin() + static_cast<ptrdiff_t>(sorted);
      sorted = std::min(std::max(kSortedFirst, 4 * sorted), candidates->size());
      std::partial_sort(from, candidates->begin() + static_cast<ptrdiff_t>(sorted),
                        candidates->end(), ComesBefore);
    }
    sum += (*candidates)[kept++].weight;
    if (sum >= nucleus) break;
  }
  candidates->resize(kept);
}

void KeepMinP(double p, std::vector<Candidate>* candidates) {
  if (p <= 0) return;
  const double least = p * HeaviestOf(*candidates);
  std::erase_if(*candidates, [&](const Candidate& c) { return c.weight < least; });
}

TokenId Draw(double uniform, std::span<const Candidate> candidates) {
  const double target = uniform * SumOf(candidates);
  double sum = 0;
  TokenId last = candidates.front().id;
  for (const Candidate& candidate : candidates) {
    if (candidate.weight == 0) continue;
    sum += candidate.weight;
    last = candidate.id;
    if (target < sum) break;
  }
  return last;
}

}  // namespace corpusd
