// store/store_observer.h -- StoreObserver: who wants to know what happens to blocks, such as a
// daemon that counts it. Counts only: not asked for anything, and not told of single blocks' names.
// Called by whichever thread does the work, often with a lock of the store held: must be quick,
// must not call the store, and must be thread-safe. Not owned; outlives the store.
#pragma once

#include <cstdint>

#include "store/block_ref.h"
#include "store/miss_reason.h"

namespace corpusd {

class StoreObserver {
 public:
  virtual ~StoreObserver() = default;
  // Blocks that were not stored before are durable now; bytes of payload.
  virtual void OnPublished(uint64_t blocks, uint64_t bytes) = 0;
  // Blocks left a tier, bytes of payload. What other corpora share stays and is not counted; from
  // memory, leaving saves nothing on disk.
  virtual void OnEvicted(TierKind tier, EvictionReason reason, uint64_t blocks, uint64_t bytes) = 0;
  // A block in this tier failed its checksum and is set aside.
  virtual void OnDamaged(TierKind tier) = 0;
};

}  // namespace corpusd
