// store/half_life_contest.h -- which half-life serves a tier's traffic best, found by miniature
// simulation (Waldspurger et al., "Cache Modeling and Optimization using Miniature Simulations",
// USENIX ATC 2017): a sample of the items, chosen by their hash, goes through one small cache for
// each half-life, of capacity and traffic scaled alike; the one whose hits saved most lately wins.
// Part of eviction_policy.h. Not thread-safe.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <set>
#include <tuple>
#include <unordered_map>
#include <utility>

namespace corpusd {

// In turnovers of the tier. The first is LRU in all but name, the last LFU of a long memory.
inline constexpr std::array<double, 4> kHalfLives = {1.0 / 32, 1, 4, 16};

// What is remembered of an item's uses: for each half-life their weights, decayed to `turn`.
struct Heat {
  std::array<double, kHalfLives.size()> uses{};
  double turn = 0;
  int64_t counted_ms = -1;  // when a use last counted, by the caller's clock; -1: never

  void Use(double now, double weight);
  // The logarithm of the heat, less what all items lose alike as time passes: items compare the
  // same at any time. A larger one is hotter.
  double Rank(size_t half_life) const;
};

class HalfLifeContest {
 public:
  explicit HalfLifeContest(uint64_t capacity_bytes) : capacity_bytes_(capacity_bytes) {}

  void Use(uint64_t item, uint64_t position, uint64_t bytes, double weight, double turn);
  size_t winner() const { return winner_; }

 private:
  static constexpr size_t kCaches = kHalfLives.size();
  using Key = std::tuple<double, int64_t, uint64_t>;  // rank, -position, item: first leaves first
  struct Item {
    Heat heat;
    uint64_t bytes = 0;
    std::array<bool, kCaches> inside{};
    std::array<Key, kCaches> key;
  };
  struct Cache {
    std::set<Key> items;
    uint64_t bytes = 0;
    double score = 0;
  };
  void Shrink(Cache* cache, size_t index);
  void ForgetOldest();
  void Judge(double turn);

  const uint64_t capacity_bytes_;
  uint64_t sampled_ = 0;  // one item of so many, a power of two; 0: not known yet
  uint64_t cache_bytes_ = 0;
  std::unordered_map<uint64_t, Item> items_;
  std::set<std::pair<double, uint64_t>> by_turn_;  // of items_
  uint64_t item_bytes_ = 0;                        // of items_
  std::array<Cache, kCaches> caches_;
  size_t winner_ = 0;  // LRU until another has shown to be better
  double judged_ = 0;
  double changed_ = 0;
};

}  // namespace corpusd
