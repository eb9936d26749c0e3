// store/eviction_policy.h -- which block leaves the host tier next: a pure function of what the
// tier knows. Least recently used group (corpus) first, and of it the last block first: a prefix
// stays useful without its tail, a tail is useless without its prefix.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

namespace corpusd {

struct EvictionCandidate {
  uint64_t group_last_use = 0;  // a larger number is more recent
  uint64_t position = 0;        // in the group's chain
  bool leased = false;
  bool pinned = false;
};

// RETURNS the index to evict, or nothing if every candidate is leased or pinned.
std::optional<size_t> ChooseVictim(std::span<const EvictionCandidate> candidates);

}  // namespace corpusd
