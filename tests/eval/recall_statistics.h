// tests/eval/recall_statistics.h -- hits of recall tests, counted by task, length, KV format and
// depth decile, each format beside the first one on the same questions. Counts only; one thread.
#pragma once

#include <array>
#include <span>
#include <string>
#include <vector>

#include "tests/eval/recall_task.h"

namespace corpusd {

struct RecallCount {
  size_t asked = 0, hits = 0;
  size_t neighbours = 0, others = 0;  // wrong answers that are another needle's value

  void Add(RecallOutcome outcome);
  // Fraction of hits; 0 if nothing was asked.
  double recall() const {
    return asked == 0 ? 0 : static_cast<double>(hits) / static_cast<double>(asked);
  }
};

// Bounds of a 95 % interval of a fraction (Wilson 1927), which holds for few and for no hits, too.
struct Interval {
  double low = 0, high = 1;
};
Interval WilsonInterval(size_t hits, size_t asked);

struct RecallCell {
  RecallTask task = RecallTask::kPasskey;
  uint32_t length = 0;
  std::string format;
  RecallCount total;
  std::array<RecallCount, kDeciles> deciles;
  // Beside the first format: questions that only it, or only this one, answers right.
  size_t lost = 0, gained = 0;
};

class RecallStatistics {
 public:
  explicit RecallStatistics(std::vector<std::string> formats) : formats_(std::move(formats)) {}

  // outcomes [formats][questions of recall]. REQUIRES: these sizes.
  void Add(const RecallCase& recall, const std::vector<std::vector<RecallOutcome>>& outcomes);

  const std::vector<std::string>& formats() const { return formats_; }
  // By task, length and format, in the order they came.
  const std::vector<RecallCell>& cells() const { return cells_; }
  // All lengths of a task together; length 0.
  std::vector<RecallCell> Totals() const;

 private:
  RecallCell& Cell(RecallTask task, uint32_t length, size_t format);

  const std::vector<std::string> formats_;
  std::vector<RecallCell> cells_;
};

}  // namespace corpusd
