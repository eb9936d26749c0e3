#include "store/half_life_contest.h"

#include <algorithm>
#include <cmath>

namespace corpusd {
namespace {

// Items in a miniature cache: enough that luck does not decide, few enough to cost nothing.
constexpr uint64_t kMiniatureItems = 512;
// Of what the miniature caches hold, times this is remembered beside them.
constexpr uint64_t kHistory = 4;
// Scores are forgotten by half in so many turnovers.
constexpr double kScoreHalfLife = 2;
// A change needs to be better by a hundredth, and leaves its successor time to show itself.
constexpr double kMargin = 1.01;
constexpr double kChangeInterval = 0.1;

// Spreads whatever structure the item numbers have (the finalizer of MurmurHash3).
uint64_t Mixed(uint64_t x) {
  x ^= x >> 33;
  x *= 0xff51afd7ed558ccdU;
  x ^= x >> 33;
  x *= 0xc4ceb9fe1a85ec53U;
  return x ^ x >> 33;
}

}  // namespace

void Heat::Use(double now, double weight) {
  for (size_t h = 0; h < kHalfLives.size(); ++h) {
    uses[h] = uses[h] * std::exp2((turn - now) / kHalfLives[h]) + weight;
  }
  turn = now;
}

double Heat::Rank(size_t half_life) const {
  return std::log2(uses[half_life]) + turn / kHalfLives[half_life];
}

void HalfLifeContest::Use(uint64_t item, uint64_t position, uint64_t bytes, double weight,
                          double turn) {
  if (bytes == 0) return;
  if (sampled_ == 0) {
    sampled_ = 1;
    while (capacity_bytes_ / bytes / sampled_ > 2 * kMiniatureItems) sampled_ *= 2;
    cache_bytes_ = capacity_bytes_ / sampled_;
    judged_ = turn;
  }
  if (Mixed(item) % sampled_ != 0) return;
  Judge(turn);
  const auto [it, fresh] = items_.try_emplace(item);
  Item& known = it->second;
  if (!fresh) by_turn_.erase({known.heat.turn, item});
  // The size may have been a guess, or a corpus may have grown.
  for (size_t h = 0; h < kCaches; ++h) {
    if (known.inside[h]) caches_[h].bytes += bytes - known.bytes;
  }
  item_bytes_ += bytes - known.bytes;
  known.bytes = bytes;
  known.heat.Use(turn, weight);
  by_turn_.insert({turn, item});
  for (size_t h = 0; h < kCaches; ++h) {
    Cache& cache = caches_[h];
    if (known.inside[h]) {
      cache.score += weight * static_cast<double>(known.bytes);
      cache.items.erase(known.key[h]);
    } else {
      cache.bytes += known.bytes;
    }
    known.inside[h] = true;
    known.key[h] = {known.heat.Rank(h), -static_cast<int64_t>(position), item};
    cache.items.insert(known.key[h]);
  }
  // Only now, since each may lose the item itself.
  for (size_t h = 0; h < kCaches; ++h) Shrink(&caches_[h], h);
  ForgetOldest();
}

void HalfLifeContest::Shrink(Cache* cache, size_t index) {
  while (cache->bytes > cache_bytes_) {
    Item& victim = items_.at(std::get<2>(*cache->items.begin()));
    cache->items.erase(cache->items.begin());
    cache->bytes -= victim.bytes;
    victim.inside[index] = false;
  }
}

void HalfLifeContest::ForgetOldest() {
  while (item_bytes_ / (kHistory * 2) > cache_bytes_) {
    const uint64_t oldest = by_turn_.begin()->second;
    by_turn_.erase(by_turn_.begin());
    const auto it = items_.find(oldest);
    for (size_t h = 0; h < kCaches; ++h) {
      if (!it->second.inside[h]) continue;
      caches_[h].items.erase(it->second.key[h]);
      caches_[h].bytes -= it->second.bytes;
    }
    item_bytes_ -= it->second.bytes;
    items_.erase(it);
  }
}

void HalfLifeContest::Judge(double turn) {
  if (turn == judged_) return;
  const double kept = std::exp2((judged_ - turn) / kScoreHalfLife);
  judged_ = turn;
  size_t best = winner_;
  for (size_t h = 0; h < kCaches; ++h) {
    caches_[h].score *= kept;
    if (caches_[h].score > caches_[best].score * (best == winner_ ? kMargin : 1)) best = h;
  }
  if (best == winner_ || turn - changed_ < kChangeInterval) return;
  winner_ = best;
  changed_ = turn;
}

}  // namespace corpusd
