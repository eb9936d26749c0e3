// store/host_tier.h -- blocks in host memory under a hard cap of bytes. Leased blocks (a BlockRef
// lives) and pinned ones stay; others leave by eviction_policy.h, where every byte saves the same:
// a block that is not here is read from disk. Thread-safe. Owns the memory; BlockRefs share it, and
// may outlive the tier.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "store/base/result.h"
#include "store/block_place.h"
#include "store/block_ref.h"
#include "store/eviction_policy.h"

namespace corpusd {

// One block's payload: page-aligned, huge pages when the kernel grants them.
class HostBlock {
 public:
  // Maps the memory; its bytes, in whole pages, are in *used already and leave it with the block.
  static Result<std::shared_ptr<HostBlock>> Allocate(const Digest& digest, uint32_t tokens,
                                                     uint64_t bytes,
                                                     std::shared_ptr<std::atomic<uint64_t>> used);
  ~HostBlock();
  HostBlock(const HostBlock&) = delete;
  HostBlock& operator=(const HostBlock&) = delete;

  std::span<std::byte> bytes() { return {data_, bytes_}; }
  std::span<const std::byte> bytes() const { return {data_, bytes_}; }
  uint64_t charged_bytes() const;
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
  explicit HostTier(uint64_t capacity_bytes);

  struct Request {
    Digest digest;
    uint32_t tokens = 0;
    uint64_t bytes = 0;
  };
  // Pinned digests and until when (Unix milliseconds; 0: for good).
  using Pins = std::unordered_map<Digest, int64_t, DigestHash>;

  // A lease, or an invalid ref. Does not count as a use.
  BlockRef Find(const Digest& digest);
  // A chain, or the beginning of one, is used now: its blocks count alike, be they here or not yet;
  // but not those of which a use counted less than correlated_ms ago.
  void NoteUse(std::span<const Digest> chain, int64_t correlated_ms);
  // Memory for all the blocks or none, evicting as needed. kResourceExhausted, with the numbers, if
  // leases and pins leave no room.
  Result<std::vector<std::shared_ptr<HostBlock>>> Reserve(std::span<const Request> requests);
  // The same for one block, of free room only: null if nothing is free.
  std::shared_ptr<HostBlock> ReserveFree(const Request& request);
  // Makes a filled block findable; if another thread was first, its block is kept and returned.
  BlockRef Insert(std::shared_ptr<HostBlock> block, const BlockPlace& place);
  // Forgets the block; a lease keeps its memory until it ends.
  void Erase(const Digest& digest);
  // Erases unleased blocks among digests. RETURNS blocks and bytes; dry_run only counts.
  std::pair<uint64_t, uint64_t> Drop(std::span<const Digest> digests, bool dry_run);
  void SetPins(Pins pins);

  bool Contains(const Digest& digest) const;
  // Blocks that someone besides the tier holds.
  std::vector<Digest> HeldDigests() const;
  uint64_t capacity_bytes() const { return capacity_bytes_; }
  uint64_t used_bytes() const { return used_->load(); }
  uint64_t PinnedBytes() const;

 private:
  struct Entry {
    std::shared_ptr<HostBlock> block;
    BlockPlace place;
    Heat heat;
  };
  bool PinnedLocked(const Digest& digest, int64_t now_ms) const;
  bool EvictLocked(uint64_t needed_bytes);
  void EraseLocked(std::unordered_map<Digest, Entry, DigestHash>::iterator it);

  const uint64_t capacity_bytes_;
  std::shared_ptr<std::atomic<uint64_t>> used_;
  mutable std::mutex mutex_;
  std::unordered_map<Digest, Entry, DigestHash> entries_;
  EvictionPolicy policy_;
  uint64_t block_bytes_ = 4096;  // what a block takes: of the last one that came
  Pins pins_;
};

}  // namespace corpusd
