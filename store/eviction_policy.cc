#include "store/eviction_policy.h"

namespace corpusd {

std::optional<size_t> ChooseVictim(std::span<const EvictionCandidate> candidates) {
  std::optional<size_t> victim;
  for (size_t i = 0; i < candidates.size(); ++i) {
    const EvictionCandidate& c = candidates[i];
    if (c.leased || c.pinned) continue;
    if (!victim) {
      victim = i;
      continue;
    }
    const EvictionCandidate& best = candidates[*victim];
    if (c.group_last_use < best.group_last_use ||
        (c.group_last_use == best.group_last_use && c.position > best.position)) {
      victim = i;
    }
  }
  return victim;
}

}  // namespace corpusd
