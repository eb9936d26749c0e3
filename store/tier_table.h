// store/tier_table.h -- which blocks a tier of memory holds and who leaves it when it is full: one
// table for host and device. Counts bytes against a hard cap; leased blocks (somebody else holds
// the pointer) and pinned ones stay, others leave by eviction_policy.h, where every byte saves the
// same: a block that is not here is read from below. Knows no memory: the blocks own theirs.
// Thread-safe.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "store/base/status.h"
#include "store/block_place.h"
#include "store/eviction_policy.h"
#include "store/store_observer.h"

namespace corpusd {

// Bytes charged to a tier, by everything that lives in its memory.
using TierCharge = std::shared_ptr<std::atomic<uint64_t>>;

// A block in some memory. Its bytes are charged before it is made and leave the charge with it.
class TierBlock {
 public:
  virtual ~TierBlock() = default;
  TierBlock(const TierBlock&) = delete;
  TierBlock& operator=(const TierBlock&) = delete;

  virtual uint64_t charged_bytes() const = 0;  // of memory, padding included
  virtual uint64_t payload_bytes() const = 0;
  uint32_t tokens() const { return tokens_; }
  const Digest& digest() const { return digest_; }

 protected:
  TierBlock(const Digest& digest, uint32_t tokens) : digest_(digest), tokens_(tokens) {}

 private:
  const Digest digest_;
  const uint32_t tokens_;
};

class TierTable {
 public:
  // name: of the tier, option: that raises its cap; both for messages.
  TierTable(std::string name, std::string option, uint64_t capacity_bytes);

  // Pinned digests and until when (Unix milliseconds; 0: for good).
  using Pins = std::unordered_map<Digest, int64_t, DigestHash>;

  // The block, leased by the pointer, or null. Does not count as a use.
  std::shared_ptr<TierBlock> Find(const Digest& digest);
  // A chain, or the beginning of one, is used now: its blocks count alike, be they here or not yet;
  // but not those of which a use counted less than correlated_ms ago.
  // first: the position of the first of them.
  void NoteUse(std::span<const Digest> chain, int64_t correlated_ms, size_t first = 0);
  // Charges so many bytes, of `blocks` blocks, evicting as needed. kResourceExhausted, with the
  // numbers, if leases and pins leave no room.
  Status Charge(uint64_t bytes, size_t blocks);
  // The same of free room only. RETURNS whether there was any.
  bool ChargeFree(uint64_t bytes);
  // Makes a filled block findable; if another thread was first, its block is kept and returned.
  std::shared_ptr<TierBlock> Insert(std::shared_ptr<TierBlock> block, const BlockPlace& place);
  // Forgets the block; a lease keeps its memory until it ends.
  void Erase(const Digest& digest);
  // Erases unleased blocks among digests. RETURNS blocks and payload bytes; dry_run only counts.
  std::pair<uint64_t, uint64_t> Drop(std::span<const Digest> digests, bool dry_run);
  // Who is told of what leaves by Charge and Drop; before the table is used.
  void SetObserver(StoreObserver* observer, TierKind tier);
  void SetPins(Pins pins);
  // Pins more digests, until the same time (Unix ms; 0: for good).
  void AddPins(std::span<const Digest> digests, int64_t until_ms);

  bool Contains(const Digest& digest) const;
  // Blocks that someone besides the tier holds.
  std::vector<Digest> HeldDigests() const;
  uint64_t capacity_bytes() const { return capacity_bytes_; }
  uint64_t used_bytes() const { return charge_->load(); }
  uint64_t PinnedBytes() const;
  const TierCharge& charge() const { return charge_; }

 private:
  struct Entry {
    std::shared_ptr<TierBlock> block;
    BlockPlace place;
    Heat heat;
  };
  using Entries = std::unordered_map<Digest, Entry, DigestHash>;
  bool PinnedLocked(const Digest& digest, int64_t now_ms) const;
  bool EvictLocked(uint64_t needed_bytes);
  void EraseLocked(Entries::iterator it);
  void TellLocked(EvictionReason reason, uint64_t blocks, uint64_t bytes) const;

  const std::string name_, option_;
  const uint64_t capacity_bytes_;
  const TierCharge charge_;
  mutable std::mutex mutex_;
  Entries entries_;
  EvictionPolicy policy_;
  uint64_t block_bytes_ = 4096;  // what a block takes: of the last one that came
  Pins pins_;
  StoreObserver* observer_ = nullptr;
  TierKind tier_ = TierKind::kHost;
};

}  // namespace corpusd
