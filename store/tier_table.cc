#include "store/tier_table.h"

#include "store/base/clock.h"
#include "store/base/units.h"
#include "store/eviction_policy.h"

namespace corpusd {

TierTable::TierTable(std::string name, std::string option, uint64_t capacity_bytes)
    : name_(std::move(name)),
      option_(std::move(option)),
      capacity_bytes_(capacity_bytes),
      charge_(std::make_shared<std::atomic<uint64_t>>(0)),
      policy_(capacity_bytes) {}

std::shared_ptr<TierBlock> TierTable::Find(const Digest& digest) {
  const std::lock_guard lock(mutex_);
  const auto it = entries_.find(digest);
  if (it == entries_.end()) return nullptr;
  return it->second.block;
}

void TierTable::NoteUse(std::span<const Digest> chain, int64_t correlated_ms, size_t first) {
  const std::lock_guard lock(mutex_);
  const int64_t now_ms = WallTimeMs();
  for (size_t i = 0; i < chain.size(); ++i) {
    const auto it = entries_.find(chain[i]);
    const uint64_t item = DigestHash()(chain[i]);
    const EvictionPolicy::ItemUse use = {item,         first + i,     block_bytes_,
                                         /*weight=*/1, correlated_ms, now_ms};
    if (it != entries_.end()) {
      it->second.heat = policy_.Use(use, it->second.heat);
    } else {  // on its way, or too much to come: remembered either way
      const Heat heat = policy_.Use(use, policy_.Recall(item).value_or(Heat{}));
      policy_.Remember(item, block_bytes_, heat);
    }
  }
}

bool TierTable::PinnedLocked(const Digest& digest, int64_t now_ms) const {
  const auto pin = pins_.find(digest);
  return pin != pins_.end() && (pin->second == 0 || pin->second > now_ms);
}

void TierTable::EraseLocked(Entries::iterator it) {
  policy_.Remember(DigestHash()(it->first), it->second.block->charged_bytes(), it->second.heat);
  entries_.erase(it);
}

bool TierTable::EvictLocked(uint64_t needed_bytes) {
  const int64_t now_ms = WallTimeMs();
  std::vector<EvictionCandidate> candidates;
  std::vector<Digest> digests;
  candidates.reserve(entries_.size());
  digests.reserve(entries_.size());
  for (const auto& [digest, entry] : entries_) {
    // The table's own reference is one; nobody can add a second without the lock.
    const bool leased = entry.block.use_count() > 1;
    candidates.push_back({policy_.Rank(entry.heat), entry.place.position,
                          entry.block->charged_bytes(), leased, PinnedLocked(digest, now_ms)});
    digests.push_back(digest);
  }
  const auto victims = ChooseVictims(candidates, needed_bytes);
  uint64_t payload_bytes = 0;
  for (const size_t victim : victims) {
    const auto it = entries_.find(digests[victim]);
    payload_bytes += it->second.block->payload_bytes();
    EraseLocked(it);
  }
  TellLocked(EvictionReason::kRoom, victims.size(), payload_bytes);
  return !victims.empty();
}

Status TierTable::Charge(uint64_t bytes, size_t blocks) {
  const std::lock_guard lock(mutex_);
  const uint64_t used_bytes = charge_->load();
  const bool fits = used_bytes + bytes <= capacity_bytes_;
  if (!fits && (bytes > capacity_bytes_ || !EvictLocked(used_bytes + bytes - capacity_bytes_))) {
    return ResourceExhaustedError(
        "the " + name_ + " tier cannot take " + FormatBytes(bytes) + " more (" +
        std::to_string(blocks) + " blocks): " + FormatBytes(used_bytes) + " of " +
        FormatBytes(capacity_bytes_) +
        " are used, and what is not leased or pinned is too little: raise " + option_ +
        ", or unpin a corpus");
  }
  charge_->fetch_add(bytes);
  return OkStatus();
}

bool TierTable::ChargeFree(uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  if (charge_->load() + bytes > capacity_bytes_) return false;
  charge_->fetch_add(bytes);
  return true;
}

std::shared_ptr<TierBlock> TierTable::Insert(std::shared_ptr<TierBlock> block,
                                             const BlockPlace& place) {
  const std::lock_guard lock(mutex_);
  const Digest digest = block->digest();
  const auto [it, inserted] = entries_.try_emplace(digest, Entry{std::move(block), place, {}});
  if (inserted) {
    const uint64_t item = DigestHash()(digest);
    block_bytes_ = it->second.block->charged_bytes();
    // NoteUse came before, unless the block comes by itself.
    const auto noted = policy_.Recall(item);
    it->second.heat =
        noted
            ? *noted
            : policy_.Use({item, place.position, block_bytes_, /*weight=*/1, 0, WallTimeMs()}, {});
    policy_.Enter(block_bytes_);
  }
  return it->second.block;
}

void TierTable::Erase(const Digest& digest) {
  const std::lock_guard lock(mutex_);
  const auto it = entries_.find(digest);
  if (it != entries_.end()) EraseLocked(it);
}

std::pair<uint64_t, uint64_t> TierTable::Drop(std::span<const Digest> digests, bool dry_run) {
  const std::lock_guard lock(mutex_);
  uint64_t blocks = 0;
  uint64_t bytes = 0;
  for (const Digest& digest : digests) {
    const auto it = entries_.find(digest);
    if (it == entries_.end() || it->second.block.use_count() > 1) continue;
    ++blocks;
    bytes += it->second.block->payload_bytes();
    if (!dry_run) EraseLocked(it);
  }
  if (!dry_run) TellLocked(EvictionReason::kAsked, blocks, bytes);
  return {blocks, bytes};
}

void TierTable::SetObserver(StoreObserver* observer, TierKind tier) {
  const std::lock_guard lock(mutex_);
  observer_ = observer;
  tier_ = tier;
}

void TierTable::TellLocked(EvictionReason reason, uint64_t blocks, uint64_t bytes) const {
  if (observer_ != nullptr && blocks > 0) observer_->OnEvicted(tier_, reason, blocks, bytes);
}

void TierTable::SetPins(Pins pins) {
  const std::lock_guard lock(mutex_);
  pins_ = std::move(pins);
}

void TierTable::AddPins(std::span<const Digest> digests, int64_t until_ms) {
  const std::lock_guard lock(mutex_);
  for (const Digest& digest : digests) {
    const auto [it, inserted] = pins_.try_emplace(digest, until_ms);
    if (!inserted)
      it->second = it->second == 0 || until_ms == 0 ? 0 : std::max(it->second, until_ms);
  }
}

std::vector<Digest> TierTable::HeldDigests() const {
  const std::lock_guard lock(mutex_);
  std::vector<Digest> digests;
  for (const auto& [digest, entry] : entries_) {
    if (entry.block.use_count() > 1) digests.push_back(digest);
  }
  return digests;
}

bool TierTable::Contains(const Digest& digest) const {
  const std::lock_guard lock(mutex_);
  return entries_.contains(digest);
}

uint64_t TierTable::PinnedBytes() const {
  const std::lock_guard lock(mutex_);
  const int64_t now_ms = WallTimeMs();
  uint64_t bytes = 0;
  for (const auto& [digest, entry] : entries_) {
    if (PinnedLocked(digest, now_ms)) bytes += entry.block->charged_bytes();
  }
  return bytes;
}

}  // namespace corpusd
