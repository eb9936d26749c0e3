#include "store/host_tier.h"

#include <sys/mman.h>

#include "store/base/check.h"
#include "store/base/clock.h"
#include "store/base/units.h"
#include "store/eviction_policy.h"

namespace corpusd {
namespace {

constexpr uint64_t kPageBytes = 4096;

uint64_t WholePages(uint64_t bytes) { return (bytes + kPageBytes - 1) / kPageBytes * kPageBytes; }

}  // namespace

Result<std::shared_ptr<HostBlock>> HostBlock::Allocate(
    const Digest& digest, uint32_t tokens, uint64_t bytes,
    std::shared_ptr<std::atomic<uint64_t>> used) {
  std::shared_ptr<HostBlock> block(new HostBlock(digest, tokens));
  void* const memory =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    used->fetch_sub(WholePages(bytes));
    return ResourceExhaustedError("cannot map " + FormatBytes(bytes) +
                                  " of host memory for a block");
  }
  // Huge pages give attention 70 % more read bandwidth where the kernel grants them on request.
  madvise(memory, bytes, MADV_HUGEPAGE);
  block->data_ = static_cast<std::byte*>(memory);
  block->bytes_ = bytes;
  block->used_ = std::move(used);
  return block;
}

HostBlock::~HostBlock() {
  if (data_ == nullptr) return;
  munmap(data_, bytes_);
  used_->fetch_sub(charged_bytes());
}

uint64_t HostBlock::charged_bytes() const { return WholePages(bytes_); }

std::span<const std::byte> BlockRef::bytes() const { return block_->bytes(); }
uint32_t BlockRef::tokens() const { return block_->tokens(); }
const Digest& BlockRef::digest() const { return block_->digest(); }
BlockRef BlockRef::HeldBy(const std::shared_ptr<const void>& holder) const {
  return BlockRef(std::shared_ptr<const HostBlock>(holder, block_.get()));
}

HostTier::HostTier(uint64_t capacity_bytes)
    : capacity_bytes_(capacity_bytes),
      used_(std::make_shared<std::atomic<uint64_t>>(0)),
      policy_(capacity_bytes) {}

BlockRef HostTier::Find(const Digest& digest) {
  const std::lock_guard lock(mutex_);
  const auto it = entries_.find(digest);
  if (it == entries_.end()) return {};
  return BlockRef(it->second.block);
}

void HostTier::NoteUse(std::span<const Digest> chain, int64_t correlated_ms) {
  const std::lock_guard lock(mutex_);
  const int64_t now_ms = WallTimeMs();
  for (size_t i = 0; i < chain.size(); ++i) {
    const auto it = entries_.find(chain[i]);
    const uint64_t item = DigestHash()(chain[i]);
    const EvictionPolicy::ItemUse use = {item,          i,     block_bytes_, /*weight=*/1,
                                         correlated_ms, now_ms};
    if (it != entries_.end()) {
      it->second.heat = policy_.Use(use, it->second.heat);
    } else {  // on its way, or too much to come: remembered either way
      const Heat heat = policy_.Use(use, policy_.Recall(item).value_or(Heat{}));
      policy_.Remember(item, block_bytes_, heat);
    }
  }
}

bool HostTier::PinnedLocked(const Digest& digest, int64_t now_ms) const {
  const auto pin = pins_.find(digest);
  return pin != pins_.end() && (pin->second == 0 || pin->second > now_ms);
}

void HostTier::EraseLocked(std::unordered_map<Digest, Entry, DigestHash>::iterator it) {
  policy_.Remember(DigestHash()(it->first), it->second.block->charged_bytes(), it->second.heat);
  entries_.erase(it);
}

bool HostTier::EvictLocked(uint64_t needed_bytes) {
  const int64_t now_ms = WallTimeMs();
  std::vector<EvictionCandidate> candidates;
  std::vector<Digest> digests;
  candidates.reserve(entries_.size());
  digests.reserve(entries_.size());
  for (const auto& [digest, entry] : entries_) {
    // The tier's own reference is one; nobody can add a second without the lock.
    const bool leased = entry.block.use_count() > 1;
    candidates.push_back({policy_.Rank(entry.heat), entry.place.position,
                          entry.block->charged_bytes(), leased, PinnedLocked(digest, now_ms)});
    digests.push_back(digest);
  }
  const auto victims = ChooseVictims(candidates, needed_bytes);
  for (const size_t victim : victims) EraseLocked(entries_.find(digests[victim]));
  return !victims.empty();
}

Result<std::vector<std::shared_ptr<HostBlock>>> HostTier::Reserve(
    std::span<const Request> requests) {
  uint64_t needed_bytes = 0;
  for (const Request& request : requests) needed_bytes += WholePages(request.bytes);
  {
    const std::lock_guard lock(mutex_);
    const uint64_t used_bytes = used_->load();
    const bool fits = used_bytes + needed_bytes <= capacity_bytes_;
    if (!fits && (needed_bytes > capacity_bytes_ ||
                  !EvictLocked(used_bytes + needed_bytes - capacity_bytes_))) {
      return ResourceExhaustedError(
          "the host tier cannot take " + FormatBytes(needed_bytes) + " more (" +
          std::to_string(requests.size()) + " blocks): " + FormatBytes(used_bytes) + " of " +
          FormatBytes(capacity_bytes_) +
          " are used, and what is not leased or pinned is too little: raise --host-bytes, or "
          "unpin a corpus");
    }
    used_->fetch_add(needed_bytes);
  }
  std::vector<std::shared_ptr<HostBlock>> blocks;
  blocks.reserve(requests.size());
  uint64_t charged_bytes = 0;
  for (const Request& request : requests) {
    charged_bytes += WholePages(request.bytes);
    auto block = HostBlock::Allocate(request.digest, request.tokens, request.bytes, used_);
    if (!block.ok()) {
      used_->fetch_sub(needed_bytes - charged_bytes);
      return block.status();
    }
    blocks.push_back(std::move(*block));
  }
  return blocks;
}

std::shared_ptr<HostBlock> HostTier::ReserveFree(const Request& request) {
  {
    const std::lock_guard lock(mutex_);
    if (used_->load() + WholePages(request.bytes) > capacity_bytes_) return nullptr;
    used_->fetch_add(WholePages(request.bytes));
  }
  auto block = HostBlock::Allocate(request.digest, request.tokens, request.bytes, used_);
  return block.ok() ? *block : nullptr;
}

BlockRef HostTier::Insert(std::shared_ptr<HostBlock> block, const BlockPlace& place) {
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
  return BlockRef(it->second.block);
}

void HostTier::Erase(const Digest& digest) {
  const std::lock_guard lock(mutex_);
  const auto it = entries_.find(digest);
  if (it != entries_.end()) EraseLocked(it);
}

std::pair<uint64_t, uint64_t> HostTier::Drop(std::span<const Digest> digests, bool dry_run) {
  const std::lock_guard lock(mutex_);
  uint64_t blocks = 0;
  uint64_t bytes = 0;
  for (const Digest& digest : digests) {
    const auto it = entries_.find(digest);
    if (it == entries_.end() || it->second.block.use_count() > 1) continue;
    ++blocks;
    bytes += it->second.block->bytes().size();
    if (!dry_run) EraseLocked(it);
  }
  return {blocks, bytes};
}

void HostTier::SetPins(Pins pins) {
  const std::lock_guard lock(mutex_);
  pins_ = std::move(pins);
}

std::vector<Digest> HostTier::HeldDigests() const {
  const std::lock_guard lock(mutex_);
  std::vector<Digest> digests;
  for (const auto& [digest, entry] : entries_) {
    if (entry.block.use_count() > 1) digests.push_back(digest);
  }
  return digests;
}

bool HostTier::Contains(const Digest& digest) const {
  const std::lock_guard lock(mutex_);
  return entries_.contains(digest);
}

uint64_t HostTier::PinnedBytes() const {
  const std::lock_guard lock(mutex_);
  const int64_t now_ms = WallTimeMs();
  uint64_t bytes = 0;
  for (const auto& [digest, entry] : entries_) {
    if (PinnedLocked(digest, now_ms)) bytes += entry.block->charged_bytes();
  }
  return bytes;
}

}  // namespace corpusd
