#include "tests/bench/replay_cache.h"

#include <algorithm>
#include <deque>
#include <list>
#include <set>
#include <tuple>

#include "store/eviction_policy.h"

namespace corpusd {
namespace {

constexpr uint64_t kBlockBytes = 1;  // all are alike: a tier is counted in blocks
constexpr uint32_t kNever = UINT32_MAX;

// Counts the leading blocks that `inside` holds.
template <typename Inside>
void Count(const TraceRequest& request, const Inside& inside, ReplayResult* result) {
  size_t leading = 0;
  while (leading < request.blocks.size() && inside(request.blocks[leading])) ++leading;
  const double hit = std::min<double>(static_cast<double>(request.tokens),
                                      static_cast<double>(leading) * kTraceBlockTokens);
  result->hit_tokens += hit;
  result->saved_seconds += PrefillCost(hit);
  result->total_seconds += PrefillCost(static_cast<double>(request.tokens));
}

class StoreCache {
 public:
  StoreCache(uint32_t unique_blocks, uint64_t capacity, bool cost_aware)
      : capacity_(capacity), cost_aware_(cost_aware), policy_(capacity), known_(unique_blocks) {}

  bool Contains(uint32_t block) const { return known_[block].inside; }
  double half_life() const { return policy_.half_life(); }

  void Use(const TraceRequest& request) {
    double weight = 1;
    if (cost_aware_) {
      const auto tokens = static_cast<double>(request.tokens);
      weight = PrefillCost(tokens) / std::max(tokens, 1.0);
    }
    uint64_t entered = 0;
    for (size_t i = 0; i < request.blocks.size(); ++i) {
      const uint32_t block = request.blocks[i];
      Known& known = known_[block];
      if (known.inside) {
        order_.erase(known.key);
      } else {
        known.heat = policy_.Recall(block).value_or(Heat{});
        known.inside = true;
        ++entered;
      }
      known.heat = policy_.Use({block, i, kBlockBytes, weight, 0, request.time_ms}, known.heat);
      known.key = {policy_.Rank(known.heat), -static_cast<int64_t>(i), block};
      order_.insert(known.key);
    }
    policy_.Enter(entered);
    if (policy_.half_life() != ordered_by_) Reorder();
    while (order_.size() > capacity_) EvictOne();
  }

 private:
  using Key = std::tuple<double, int64_t, uint32_t>;
  struct Known {
    Heat heat;
    Key key;
    bool inside = false;
  };

  void EvictOne() {
    const uint32_t block = std::get<2>(*order_.begin());
    order_.erase(order_.begin());
    policy_.Remember(block, kBlockBytes, known_[block].heat);
    known_[block].inside = false;
  }
  // As ChooseVictims sorts, kept sorted.
  void Reorder() {
    ordered_by_ = policy_.half_life();
    std::set<Key> reordered;
    for (const Key& key : order_) {
      const uint32_t block = std::get<2>(key);
      known_[block].key = {policy_.Rank(known_[block].heat), std::get<1>(key), block};
      reordered.insert(known_[block].key);
    }
    order_ = std::move(reordered);
  }

  const uint64_t capacity_;
  const bool cost_aware_;
  EvictionPolicy policy_;
  double ordered_by_ = 0;
  std::vector<Known> known_;
  std::set<Key> order_;
};

class S3FifoCache {
 public:
  S3FifoCache(uint32_t unique_blocks, uint64_t capacity)
      : capacity_(capacity),
        small_capacity_(std::max<uint64_t>(capacity / 10, 1)),
        blocks_(unique_blocks) {}

  bool Contains(uint32_t block) const {
    return blocks_[block].where == kSmall || blocks_[block].where == kMain;
  }

  void Use(const TraceRequest& request) {
    for (auto it = request.blocks.rbegin(); it != request.blocks.rend(); ++it) {
      Block& block = blocks_[*it];
      if (Contains(*it)) {
        block.uses = std::min(block.uses + 1, 3);
        continue;
      }
      while (small_.size() + main_.size() >= capacity_) Evict();
      const bool ghost = block.where == kGhost;
      block = {ghost ? kMain : kSmall, 0};
      (ghost ? main_ : small_).push_back(*it);
    }
  }

 private:
  enum Where : uint8_t { kNowhere, kSmall, kMain, kGhost };
  struct Block {
    Where where = kNowhere;
    int uses = 0;
  };

  void Evict() {
    if (small_.size() >= small_capacity_ || main_.empty()) {
      EvictSmall();
    } else {
      EvictMain();
    }
  }
  void EvictSmall() {
    while (!small_.empty()) {
      const uint32_t id = small_.front();
      small_.pop_front();
      Block& block = blocks_[id];
      if (block.uses > 1) {
        block = {kMain, 0};
        main_.push_back(id);
        continue;
      }
      block = {kGhost, 0};
      ghosts_.push_back(id);
      while (ghosts_.size() > capacity_) {
        if (blocks_[ghosts_.front()].where == kGhost) blocks_[ghosts_.front()].where = kNowhere;
        ghosts_.pop_front();
      }
      return;
    }
    EvictMain();
  }
  void EvictMain() {
    while (!main_.empty()) {
      const uint32_t id = main_.front();
      main_.pop_front();
      Block& block = blocks_[id];
      if (block.uses > 0) {
        --block.uses;
        main_.push_back(id);
        continue;
      }
      block = {kNowhere, 0};
      return;
    }
  }

  const uint64_t capacity_, small_capacity_;
  std::vector<Block> blocks_;
  std::deque<uint32_t> small_, main_, ghosts_;
};

// Blocks in an order that a key of theirs gives; the first leaves first.
class OrderedCache {
 public:
  using Key = std::tuple<int64_t, int64_t, uint32_t>;

  explicit OrderedCache(uint32_t unique_blocks) : keys_(unique_blocks), inside_(unique_blocks) {}
  bool Contains(uint32_t block) const { return inside_[block]; }
  void Put(uint32_t block, int64_t first, int64_t second) {
    if (inside_[block]) order_.erase(keys_[block]);
    keys_[block] = {first, second, block};
    order_.insert(keys_[block]);
    inside_[block] = true;
  }
  void Shrink(uint64_t capacity) {
    while (order_.size() > capacity) {
      inside_[std::get<2>(*order_.begin())] = false;
      order_.erase(order_.begin());
    }
  }

 private:
  std::vector<Key> keys_;
  std::vector<bool> inside_;
  std::set<Key> order_;
};

}  // namespace

double PrefillCost(double tokens) { return tokens + tokens * tokens / (2 * kCostPosition); }

ReplayResult ReplayStorePolicy(const Trace& trace, uint64_t blocks, bool cost_aware) {
  ReplayResult result;
  StoreCache cache(trace.unique_blocks, blocks, cost_aware);
  for (const TraceRequest& request : trace.requests) {
    Count(
        request, [&](uint32_t block) { return cache.Contains(block); }, &result);
    cache.Use(request);
  }
  result.half_life = cache.half_life();
  return result;
}

ReplayResult ReplayLru(const Trace& trace, uint64_t blocks) {
  ReplayResult result;
  OrderedCache cache(trace.unique_blocks);
  int64_t now = 0;
  for (const TraceRequest& request : trace.requests) {
    Count(
        request, [&](uint32_t block) { return cache.Contains(block); }, &result);
    ++now;
    for (size_t i = 0; i < request.blocks.size(); ++i) {
      cache.Put(request.blocks[i], now, -static_cast<int64_t>(i));
    }
    cache.Shrink(blocks);
  }
  return result;
}

ReplayResult ReplayS3Fifo(const Trace& trace, uint64_t blocks) {
  ReplayResult result;
  S3FifoCache cache(trace.unique_blocks, blocks);
  for (const TraceRequest& request : trace.requests) {
    Count(
        request, [&](uint32_t block) { return cache.Contains(block); }, &result);
    cache.Use(request);
  }
  return result;
}

ReplayResult ReplayOptimal(const Trace& trace, uint64_t blocks) {
  // From the end: when each use's block is used next.
  std::vector<std::vector<uint32_t>> next(trace.requests.size());
  std::vector<uint32_t> seen(trace.unique_blocks, kNever);
  for (size_t r = trace.requests.size(); r-- > 0;) {
    for (const uint32_t block : trace.requests[r].blocks) next[r].push_back(seen[block]);
    for (const uint32_t block : trace.requests[r].blocks) seen[block] = static_cast<uint32_t>(r);
  }
  ReplayResult result;
  OrderedCache cache(trace.unique_blocks);
  for (size_t r = 0; r < trace.requests.size(); ++r) {
    const TraceRequest& request = trace.requests[r];
    Count(
        request, [&](uint32_t block) { return cache.Contains(block); }, &result);
    for (size_t i = 0; i < request.blocks.size(); ++i) {
      cache.Put(request.blocks[i], -int64_t{next[r][i]}, -static_cast<int64_t>(i));
    }
    cache.Shrink(blocks);
  }
  return result;
}

}  // namespace corpusd
