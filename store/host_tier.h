// store/host_tier.h -- blocks in host memory under a hard cap of bytes: the table of who is here
// (tier_table.h) over one arena (host_arena.h). Thread-safe. The memory is shared with BlockRefs,
// which may outlive the tier.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "store/base/result.h"
#include "store/block_place.h"
#include "store/block_ref.h"
#include "store/host_arena.h"
#include "store/tier_table.h"

namespace corpusd {

// One block's payload: page-aligned, in the arena.
class HostBlock final : public TierBlock {
 public:
  // memory: so many bytes of the arena, whose whole pages are in *charge already.
  HostBlock(const Digest& digest, uint32_t tokens, std::span<std::byte> memory,
            std::shared_ptr<HostArena> arena, TierCharge charge);
  ~HostBlock() override;

  std::span<std::byte> bytes() { return memory_; }
  std::span<const std::byte> bytes() const { return memory_; }
  uint64_t charged_bytes() const override { return HostArena::WholePages(memory_.size()); }
  uint64_t payload_bytes() const override { return memory_.size(); }

 private:
  const std::span<std::byte> memory_;
  const std::shared_ptr<HostArena> arena_;
  const TierCharge charge_;
};

class HostTier {
 public:
  // run_later: touches memory ahead of its use; null: the first writer of a page waits for it.
  // device: copies blocks from here, so their memory is pinned for it; null: none does.
  explicit HostTier(uint64_t capacity_bytes, HostArena::RunLater run_later = nullptr,
                    std::shared_ptr<DeviceMemory> device = nullptr);

  struct Request {
    Digest digest;
    uint32_t tokens = 0;
    uint64_t bytes = 0;
  };
  using Pins = TierTable::Pins;

  // A lease, or an invalid ref. Does not count as a use.
  BlockRef Find(const Digest& digest);
  // As TierTable::NoteUse.
  void NoteUse(std::span<const Digest> chain, int64_t correlated_ms, size_t first = 0) {
    table_.NoteUse(chain, correlated_ms, first);
  }
  // Memory for all the blocks or none, evicting as needed. kResourceExhausted, with the numbers, if
  // leases and pins leave no room.
  Result<std::vector<std::shared_ptr<HostBlock>>> Reserve(std::span<const Request> requests);
  // The same for one block, of free room only: null if nothing is free.
  std::shared_ptr<HostBlock> ReserveFree(const Request& request);
  // Makes a filled block findable; if another thread was first, its block is kept and returned.
  BlockRef Insert(std::shared_ptr<HostBlock> block, const BlockPlace& place);
  // Forgets the block; a lease keeps its memory until it ends.
  void Erase(const Digest& digest) { table_.Erase(digest); }
  // Erases unleased blocks among digests. RETURNS blocks and bytes; dry_run only counts.
  std::pair<uint64_t, uint64_t> Drop(std::span<const Digest> digests, bool dry_run) {
    return table_.Drop(digests, dry_run);
  }
  void SetObserver(StoreObserver* observer) { table_.SetObserver(observer, TierKind::kHost); }
  void SetPins(Pins pins) { table_.SetPins(std::move(pins)); }
  void AddPins(std::span<const Digest> digests, int64_t until_ms) {
    table_.AddPins(digests, until_ms);
  }
  // Has all memory up to the cap touched, in slices, while the tier is in use already.
  void TouchAll();

  bool Contains(const Digest& digest) const { return table_.Contains(digest); }
  // Blocks that someone besides the tier holds.
  std::vector<Digest> HeldDigests() const { return table_.HeldDigests(); }
  uint64_t capacity_bytes() const { return table_.capacity_bytes(); }
  uint64_t used_bytes() const { return table_.used_bytes(); }
  uint64_t PinnedBytes() const { return table_.PinnedBytes(); }
  // Of the memory behind it; zeros if there is no address space for it.
  HostArena::Usage ArenaUsage() const;

 private:
  // Of memory that is charged already; uncharges it if there is none.
  Result<std::shared_ptr<HostBlock>> Allocate(const Request& request);

  TierTable table_;
  Status no_arena_;  // why there is none
  std::shared_ptr<HostArena> arena_;
};

}  // namespace corpusd
