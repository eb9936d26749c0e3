// store/eviction_policy.h -- which blocks leave a tier next. One policy for the host tier (items
// are blocks), the disk tier (items are corpora) and `corpus-bench replay`. Pure code on plain
// items: no clock, no lock, no I/O; not thread-safe, the caller holds its own lock. Owns what it
// remembers.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "store/half_life_contest.h"

namespace corpusd {

// An item's heat is a sum over its uses of (what a use saves per byte) * 2^(-age / half-life), the
// CRF of LRFU (Lee et al., IEEE ToC 2001): a short half-life is LRU, a long one is LFU, and the
// weight makes it cost-aware as GreedyDual-Size-Frequency is. Age is counted in turnovers of the
// tier: bytes that entered it over its capacity. Which half-life is best depends on the traffic:
// half_life_contest.h finds it.
//
// Using a chain uses all of its blocks at once and alike, so a block is never colder than its
// continuation; of equals the one farther from the start leaves first. A prefix thus outlives its
// tail without links between blocks: a prefix is useful without its tail, a tail alone is not.

struct EvictionCandidate {
  double rank = 0;        // EvictionPolicy::Rank; a larger one stays longer
  uint64_t position = 0;  // in its chain
  uint64_t bytes = 0;
  bool leased = false;
  bool pinned = false;
  int32_t priority = 0;  // all of a lower priority leave before any of a higher one
};

// RETURNS the indices of what is neither leased nor pinned, in the order of leaving.
std::vector<size_t> LeavingOrder(std::span<const EvictionCandidate> candidates);

// RETURNS indices in the order of leaving, no more than needed to free so many bytes; nothing at
// all if leases and pins leave less than that.
std::vector<size_t> ChooseVictims(std::span<const EvictionCandidate> candidates,
                                  uint64_t needed_bytes);

// Not thread-safe.
class EvictionPolicy {
 public:
  // Items that left are remembered for as long as so many times the tier's bytes enter it.
  static constexpr uint64_t kHistoryTurnovers = 3;

  explicit EvictionPolicy(uint64_t capacity_bytes);

  // Bytes entered the tier: time passes.
  void Enter(uint64_t bytes);
  struct ItemUse {
    uint64_t item = 0;      // a number of its own, such as a hash of its digest
    uint64_t position = 0;  // in its chain
    uint64_t bytes = 0;
    double weight = 1;  // what a use saves per byte, in any unit; alike for a whole chain
    // A use within so many milliseconds of one that counted is part of that one (the correlated
    // reference period of LRU-K, O'Neil et al., SIGMOD 1993).
    int64_t correlated_ms = 0;
    int64_t now_ms = 0;  // any clock that does not go back
  };
  // A use of an item, which may be absent from the tier yet; all items of one chain are used at one
  // time, that is without Enter in between. RETURNS its heat from now on.
  Heat Use(const ItemUse& use, const Heat& before);
  double Rank(const Heat& heat) const { return heat.Rank(contest_.winner()); }
  double half_life() const { return kHalfLives[contest_.winner()]; }
  double turn() const { return turn_; }
  // For a tier that was loaded from disk: time goes on where it stopped.
  void SetTurn(double turn) { turn_ = turn; }

  // Heat of items that are not in the tier.
  void Remember(uint64_t item, uint64_t bytes, const Heat& heat);
  std::optional<Heat> Recall(uint64_t item);  // and forgets it

 private:
  struct Past {
    Heat heat;
    uint64_t bytes = 0;
    uint64_t order = 0;
  };
  const uint64_t capacity_bytes_;
  double turn_ = 0;
  HalfLifeContest contest_;
  std::unordered_map<uint64_t, Past> history_;
  std::deque<std::pair<uint64_t, uint64_t>> oldest_;  // item, order
  uint64_t history_bytes_ = 0;
  uint64_t next_order_ = 0;
};

}  // namespace corpusd
