#include "store/eviction_policy.h"

#include <algorithm>

namespace corpusd {

std::vector<size_t> LeavingOrder(std::span<const EvictionCandidate> candidates) {
  std::vector<size_t> order;
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (!candidates[i].leased && !candidates[i].pinned) order.push_back(i);
  }
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const EvictionCandidate& left = candidates[a];
    const EvictionCandidate& right = candidates[b];
    if (left.priority != right.priority) return left.priority < right.priority;
    if (left.rank != right.rank) return left.rank < right.rank;
    if (left.position != right.position) return left.position > right.position;
    return a < b;
  });
  return order;
}

std::vector<size_t> ChooseVictims(std::span<const EvictionCandidate> candidates,
                                  uint64_t needed_bytes) {
  std::vector<size_t> order = LeavingOrder(candidates);
  uint64_t freed_bytes = 0;
  size_t victims = 0;
  while (victims < order.size() && freed_bytes < needed_bytes) {
    freed_bytes += candidates[order[victims++]].bytes;
  }
  order.resize(freed_bytes < needed_bytes ? 0 : victims);
  return order;
}

EvictionPolicy::EvictionPolicy(uint64_t capacity_bytes)
    : capacity_bytes_(std::max<uint64_t>(capacity_bytes, 1)), contest_(capacity_bytes_) {}

void EvictionPolicy::Enter(uint64_t bytes) {
  turn_ += static_cast<double>(bytes) / static_cast<double>(capacity_bytes_);
}

Heat EvictionPolicy::Use(const ItemUse& use, const Heat& before) {
  Heat heat = before;
  if (before.counted_ms >= 0 && use.now_ms - before.counted_ms < use.correlated_ms) {
    heat.turn = turn_;  // as if it were made now
    return heat;
  }
  heat.Use(turn_, use.weight);
  heat.counted_ms = use.now_ms;
  contest_.Use(use.item, use.position, use.bytes, use.weight, turn_);
  return heat;
}

void EvictionPolicy::Remember(uint64_t item, uint64_t bytes, const Heat& heat) {
  Past& past = history_[item];
  history_bytes_ += bytes - past.bytes;  // past.bytes is 0 for a new one
  past = {heat, bytes, next_order_++};
  oldest_.emplace_back(item, past.order);
  while (history_bytes_ / kHistoryTurnovers > capacity_bytes_ ||
         oldest_.size() > 2 * history_.size() + 16) {
    const auto [old, order] = oldest_.front();
    oldest_.pop_front();
    const auto it = history_.find(old);
    if (it == history_.end() || it->second.order != order) continue;  // used since
    if (history_bytes_ / kHistoryTurnovers <= capacity_bytes_) {
      oldest_.emplace_back(old, order);  // only the list had grown too long
      continue;
    }
    history_bytes_ -= it->second.bytes;
    history_.erase(it);
  }
}

std::optional<Heat> EvictionPolicy::Recall(uint64_t item) {
  const auto it = history_.find(item);
  if (it == history_.end()) return std::nullopt;
  const Heat heat = it->second.heat;
  history_bytes_ -= it->second.bytes;
  history_.erase(it);
  return heat;
}

}  // namespace corpusd
