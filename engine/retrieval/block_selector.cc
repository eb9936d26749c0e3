#include "engine/retrieval/block_selector.h"

#include <algorithm>
#include <numeric>

namespace corpusd {

std::vector<uint64_t> BestBlocks(const Candidates& candidates, size_t count) {
  const uint64_t blocks = candidates.scores.size();
  const uint64_t first = std::min<uint64_t>(candidates.first_block, blocks);
  std::vector<uint64_t> order(blocks - first);
  std::iota(order.begin(), order.end(), first);
  const auto better = [&](uint64_t a, uint64_t b) {
    const float score_a = candidates.scores[a];
    const float score_b = candidates.scores[b];
    return score_a != score_b ? score_a > score_b : a < b;
  };
  const size_t kept = std::min(count, order.size());
  std::partial_sort(order.begin(), order.begin() + static_cast<ptrdiff_t>(kept), order.end(),
                    better);
  order.resize(kept);
  return order;
}

std::vector<uint64_t> ChooseBlocks(const Candidates& candidates, uint32_t budget_tokens,
                                   const RetrievalRule& rule) {
  std::vector<uint64_t> chosen;
  uint64_t tokens = 0;
  for (const uint64_t block : BestBlocks(candidates, rule.blocks_max)) {
    if (!chosen.empty()) {
      const double below = candidates.scores[chosen.front()] - candidates.scores[block];
      if (below > rule.score_range) break;
      if (tokens + candidates.tokens[block] > budget_tokens) continue;
    }
    tokens += candidates.tokens[block];
    chosen.push_back(block);
  }
  return chosen;
}

std::vector<uint64_t> AttendOrder(std::span<const uint64_t> best_first) {
  return {best_first.rbegin(), best_first.rend()};
}

}  // namespace corpusd
