#include "store/eviction_policy.h"

#include <algorithm>

namespace corpusd {

std::vector<size_t> ChooseVictims(std::span<const EvictionCandidate> candidates,
                                  uint64_t needed_bytes) {
  std::vector<size_t> order;
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (!candidates[i].leased && !candidates[i].pinned) order.push_back(i);
  }
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const EvictionCandidate& left = candidates[a];
    const EvictionCandidate& right = candidates[b];
    if (left.group_last_use != right.group_last_use) {
      return left.group_last_use < right.group_last_use;
    }
    return left.position > right.position;
  });
  uint64_t freed_bytes = 0;
  size_t victims = 0;
  while (victims < order.size() && freed_bytes < needed_bytes) {
    freed_bytes += candidates[order[victims++]].bytes;
  }
  order.resize(freed_bytes < needed_bytes ? 0 : victims);
  return order;
}

}  // namespace corpusd
