// store/eviction_policy.h -- which blocks leave the host tier next: a pure function of what the
// tier knows. Least recently used group (corpus) first, and of it the last block first: a prefix
// stays useful without its tail, a tail is useless without its prefix.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace corpusd {

struct EvictionCandidate {
  uint64_t group_last_use = 0;  // a larger number is more recent
  uint64_t position = 0;        // in the group's chain
  uint64_t bytes = 0;
  bool leased = false;
  bool pinned = false;
};

// RETURNS indices in the order of leaving, no more than needed to free so many bytes; nothing at
// all if leases and pins leave less than that.
std::vector<size_t> ChooseVictims(std::span<const EvictionCandidate> candidates,
                                  uint64_t needed_bytes);

}  // namespace corpusd
