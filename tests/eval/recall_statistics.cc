#include "tests/eval/recall_statistics.h"

#include <algorithm>
#include <cmath>

#include "store/base/check.h"

namespace corpusd {
namespace {

void Merge(const RecallCount& from, RecallCount* into) {
  into->asked += from.asked;
  into->hits += from.hits;
  into->neighbours += from.neighbours;
  into->others += from.others;
}

RecallCell* Find(std::vector<RecallCell>& cells, RecallTask task, uint32_t length,
                 const std::string& format) {
  for (RecallCell& cell : cells) {
    if (cell.task == task && cell.length == length && cell.format == format) return &cell;
  }
  cells.emplace_back();
  cells.back().task = task;
  cells.back().length = length;
  cells.back().format = format;
  return &cells.back();
}

}  // namespace

void RecallCount::Add(RecallOutcome outcome) {
  ++asked;
  if (outcome == RecallOutcome::kHit) ++hits;
  if (outcome == RecallOutcome::kNeighbour) ++neighbours;
  if (outcome == RecallOutcome::kOther) ++others;
}

Interval WilsonInterval(size_t hits, size_t asked) {
  if (asked == 0) return {};
  constexpr double kZ = 1.959964;  // 97.5 % of a unit normal
  const auto n = static_cast<double>(asked);
  const double p = static_cast<double>(hits) / n;
  const double centre = p + kZ * kZ / (2 * n);
  const double spread = kZ * std::sqrt(p * (1 - p) / n + kZ * kZ / (4 * n * n));
  const double scale = 1 + kZ * kZ / n;
  return {std::max(0.0, (centre - spread) / scale), std::min(1.0, (centre + spread) / scale)};
}

RecallCell& RecallStatistics::Cell(RecallTask task, uint32_t length, size_t format) {
  return *Find(cells_, task, length, formats_[format]);
}

void RecallStatistics::Add(const RecallCase& recall,
                           const std::vector<std::vector<RecallOutcome>>& outcomes) {
  CHECK(outcomes.size() == formats_.size()) << outcomes.size();
  for (size_t format = 0; format < formats_.size(); ++format) {
    CHECK(outcomes[format].size() == recall.questions.size()) << outcomes[format].size();
    RecallCell& cell = Cell(recall.task, recall.length, format);
    for (size_t i = 0; i < recall.questions.size(); ++i) {
      const RecallOutcome outcome = outcomes[format][i];
      cell.total.Add(outcome);
      cell.deciles[recall.questions[i].decile].Add(outcome);
      const bool first_hit = outcomes[0][i] == RecallOutcome::kHit;
      const bool hit = outcome == RecallOutcome::kHit;
      if (first_hit && !hit) ++cell.lost;
      if (hit && !first_hit) ++cell.gained;
    }
  }
}

std::vector<RecallCell> RecallStatistics::Totals() const {
  std::vector<RecallCell> totals;
  for (const RecallCell& cell : cells_) {
    RecallCell& total = *Find(totals, cell.task, 0, cell.format);
    Merge(cell.total, &total.total);
    for (uint32_t d = 0; d < kDeciles; ++d) Merge(cell.deciles[d], &total.deciles[d]);
    total.lost += cell.lost;
    total.gained += cell.gained;
  }
  return totals;
}

}  // namespace corpusd
