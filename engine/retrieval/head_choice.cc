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

// Sums of the heads chosen so far, [questions][blocks].
using Sums = std::vector<std::vector<double>>;

double RankWith(const HeadScores& scores, const Sums& before, uint32_t head) {
  double total = 0;
  std::vector<double> sums;
  for (uint32_t question = 0; question < scores.questions; ++question) {
    sums = before[question];
    AddStandardized(scores.of(head, question), &sums);
    total += ReciprocalRank(sums, scores.answers[question]);
  }
  return total / scores.questions;
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
  const uint32_t q_heads = scores.shape.q_heads;
  const uint32_t group = q_heads / scores.shape.kv_heads;
  std::vector<RetrievalHead> chosen;
  std::set<KeySource> sources;
  Sums sums(scores.questions, std::vector<double>(scores.blocks));
  double reached = 0;
  while (chosen.size() < rule.heads_max) {
    double best_rank = 0;
    RetrievalHead best;
    for (uint32_t i = 0; i < scores.shape.layers * q_heads; ++i) {
      const RetrievalHead head{i / q_heads, i % q_heads};
      const bool known = sources.contains({head.layer, head.q_head / group});
      if (!known && sources.size() == rule.sources_max) continue;
      if (std::find(chosen.begin(), chosen.end(), head) != chosen.end()) continue;
      const double rank = RankWith(scores, sums, i);
      if (rank > best_rank) {
        best_rank = rank;
        best = head;
      }
    }
    if (best_rank == 0 || (!chosen.empty() && best_rank < reached + rule.least_gain)) break;
    reached = best_rank;
    chosen.push_back(best);
    sources.insert({best.layer, best.q_head / group});
    for (uint32_t question = 0; question < scores.questions; ++question) {
      AddStandardized(scores.of(best.layer * q_heads + best.q_head, question), &sums[question]);
    }
  }
  return chosen;
}

}  // namespace corpusd
