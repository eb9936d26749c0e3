#include "engine/retrieval/head_choice.h"

#include <algorithm>
#include <cmath>
#include <set>

namespace corpusd {
namespace {

// Adds a head's scores of one question in standard deviations.
void AddStandardized(std::span<const float> values, std::vector<double>* sums) {
  double mean = 0;
  double squares = 0;
  for (const float value : values) mean += value;
  mean /= static_cast<double>(values.size());
  for (const float value : values) squares += (value - mean) * (value - mean);
  const double deviation = std::sqrt(squares / static_cast<double>(values.size()));
  if (!(deviation > 0)) return;
  for (size_t i = 0; i < values.size(); ++i) (*sums)[i] += (values[i] - mean) / deviation;
}

// Blocks that score as much as the right one count as before it: a head that tells nothing apart is
// of no use.
double ReciprocalRank(std::span<const double> sums, uint32_t answer) {
  const auto rank =
      std::count_if(sums.begin(), sums.end(), [&](double sum) { return sum >= sums[answer]; });
  return 1.0 / static_cast<double>(rank);
}

}  // namespace

double MeanReciprocalRank(const HeadScores& scores, std::span<const RetrievalHead> heads) {
  double total = 0;
  for (uint32_t question = 0; question < scores.questions; ++question) {
    std::vector<double> sums(scores.blocks);
    for (const RetrievalHead& head : heads) {
      AddStandardized(scores.of(head.layer * scores.shape.q_heads + head.q_head, question), &sums);
    }
    total += ReciprocalRank(sums, scores.answers[question]);
  }
  return total / scores.questions;
}

std::vector<RetrievalHead> ChooseHeads(const HeadScores& scores, const HeadChoiceRule& rule) {
  struct Ranked {
    RetrievalHead head;
    double rank;
  };
  std::vector<Ranked> ranked;
  for (uint32_t i = 0; i < scores.shape.layers * scores.shape.q_heads; ++i) {
    const RetrievalHead head{i / scores.shape.q_heads, i % scores.shape.q_heads};
    ranked.push_back({head, MeanReciprocalRank(scores, std::span(&head, 1))});
  }
  std::stable_sort(ranked.begin(), ranked.end(),
                   [](const Ranked& a, const Ranked& b) { return a.rank > b.rank; });
  const uint32_t group = scores.shape.q_heads / scores.shape.kv_heads;
  std::vector<RetrievalHead> chosen;
  std::set<KeySource> sources;
  for (const auto& [head, rank] : ranked) {
    if (rank < rule.least_share * ranked.front().rank) break;
    const KeySource source{head.layer, head.q_head / group};
    if (!sources.contains(source) && sources.size() == rule.sources_max) continue;
    sources.insert(source);
    chosen.push_back(head);
  }
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

}  // namespace corpusd
