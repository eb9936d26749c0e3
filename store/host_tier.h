// store/host_tier.h -- blocks in host memory under a hard cap of bytes. Leased blocks (a BlockRef
// lives) stay; others leave by eviction_policy.h. Thread-safe. Owns the memory; BlockRefs share it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <unordered_map>
#include <vector>

#include "store/base/result.h"
#include "store/block_ref.h"

namespace corpusd {

// One block's payload: 64-byte aligned, huge pages when the kernel grants them.
class HostBlock {
 public:
  // kResourceExhausted if the memory cannot be had. used is lowered when the block goes.
  static Result<std::shared_ptr<HostBlock>> Allocate(const Digest& digest, uint32_t tokens,
                                                     uint64_t bytes,
                                                     std::shared_ptr<std::atomic<uint64_t>> used);
  ~HostBlock();
  HostBlock(const HostBlock&) = delete;
  HostBlock& operator=(const HostBlock&) = delete;

  std::span<std::byte> bytes() { return {data_, bytes_}; }
  std::span<const std::byte> bytes() const { return {data_, bytes_}; }
  uint32_t tokens() const { return tokens_; }
  const Digest& digest() const { return digest_; }

 private:
  HostBlock(const Digest& digest, uint32_t tokens) : digest_(digest), tokens_(tokens) {}

  Digest digest_;
  uint32_t tokens_;
  std::byte* data_ = nullptr;
  uint64_t bytes_ = 0;
  std::shared_ptr<std::atomic<uint64_t>> used_;
};

class HostTier {
 public:
  explicit HostTier(uint64_t capacity_bytes)
      : capacity_bytes_(capacity_bytes), used_(std::make_shared<std::atomic<uint64_t>>(0)) {}

  // A lease, or an invalid ref. Marks the group as used.
  BlockRef Find(const Digest& digest, const Digest& group);
  // Memory for one block, evicting as needed. kResourceExhausted, with the numbers, if leases and
  // pins leave no room.
  Result<std::shared_ptr<HostBlock>> Reserve(const Digest& digest, uint32_t tokens, uint64_t bytes);
  // Makes a filled block findable; if another thread was first, its block is kept and returned.
  BlockRef Insert(std::shared_ptr<HostBlock> block, const Digest& group, uint64_t position);
  // Forgets the block; a lease keeps its memory until it ends.
  void Erase(const Digest& digest);
  // Erases unleased blocks among digests. RETURNS blocks and bytes; dry_run only counts.
  std::pair<uint64_t, uint64_t> Drop(std::span<const Digest> digests, bool dry_run);
  // Groups whose blocks are not evicted (pins to this tier).
  void SetPinnedGroups(std::set<Digest> groups);

  bool Contains(const Digest& digest) const;
  uint64_t capacity_bytes() const { return capacity_bytes_; }
  uint64_t used_bytes() const { return used_->load(); }
  uint64_t PinnedBytes() const;

 private:
  struct Entry {
    std::shared_ptr<HostBlock> block;
    Digest group;
    uint64_t position = 0;
  };
  bool EvictOneLocked();

  const uint64_t capacity_bytes_;
  std::shared_ptr<std::atomic<uint64_t>> used_;
  mutable std::mutex mutex_;
  std::unordered_map<Digest, Entry, DigestHash> entries_;
  std::unordered_map<Digest, uint64_t, DigestHash> group_last_use_;
  std::set<Digest> pinned_groups_;
  uint64_t use_clock_ = 0;
};

}  // namespace corpusd
