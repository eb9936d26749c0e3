// store/block_loader.h -- brings blocks into the host tier: coalesced (a block that several want is
// read once), in pieces of several sections so that the first sections of all blocks arrive before
// the last of any, and dropped when nobody wants them any more. Knows where bytes come from only
// through BlockSource. Thread-safe; must outlive the prefetches that it makes.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include "store/block_header.h"
#include "store/block_prefetch.h"
#include "store/host_tier.h"
#include "store/record_codec.h"
#include "store/transfer_queue.h"

namespace corpusd {

// What lies below the host tier. Thread-safe.
class BlockSource {
 public:
  virtual ~BlockSource() = default;
  // In order; an absent one has no references.
  virtual Result<std::vector<ChainEntry>> Entries(std::span<const Digest> digests) const = 0;
  // Whether a part of a block can be read without reading all of it.
  virtual bool ReadsParts() const = 0;
  // Fills these sections of the payload and checks them. RETURNS the tier they came from.
  // kCorruption, kNotFound: the block is not where the entry says, or damaged.
  virtual Result<TierKind> ReadSections(const Digest& digest, const ChainEntry& entry,
                                        SectionRange range, std::span<std::byte> payload) = 0;
  // The block at this place is damaged.
  virtual void Quarantine(const Digest& digest, const BlockLocation& location) = 0;
};

class BlockLoader {
 public:
  BlockLoader(BlockSource& source, HostTier& host, TransferQueue& queue)
      : source_(source), host_(host), queue_(queue) {}

  // As BlockStore::Prefetch.
  Result<std::unique_ptr<BlockPrefetch>> Prefetch(std::span<const Digest> digests,
                                                  const PrefetchOptions& options);

  // Fills some sections of a payload in the caller's memory, checked; follows a block that was
  // moved in *entry, quarantines a damaged one. Any thread, one at a time for one entry.
  Status ReadChecked(const Digest& digest, ChainEntry* entry, SectionRange range,
                     std::span<std::byte> payload) {
    return ReadSections(digest, entry, range, payload).status();
  }

 private:
  class Handle;
  struct Arrival;  // one block on its way
  using ArrivalPtr = std::shared_ptr<Arrival>;
  // Arrivals of these blocks: joined where another prefetch has begun them, else begun.
  Status Claim(Handle* handle, std::span<const size_t> wanted, std::vector<ArrivalPtr>* begun);
  void Enqueue(std::span<const ArrivalPtr> arrivals, TransferPriority priority);
  void RunPiece(const ArrivalPtr& arrival, uint32_t piece);
  // Follows a block that was moved; quarantines a damaged one.
  Result<TierKind> ReadSections(const Digest& digest, ChainEntry* entry, SectionRange range,
                                std::span<std::byte> payload);
  void FinishLocked(Arrival& arrival, const Status& status);
  // Lets go of its memory, and of the reads not begun, once nobody uses it.
  void DropUnwantedLocked(Arrival& arrival);
  void Release(std::span<const ArrivalPtr> arrivals);

  BlockSource& source_;
  HostTier& host_;
  TransferQueue& queue_;
  std::mutex mutex_;  // of the map and of every arrival; taken before the host tier's
  std::condition_variable_any arrived_;
  std::unordered_map<Digest, ArrivalPtr, DigestHash> arrivals_;
};

}  // namespace corpusd
