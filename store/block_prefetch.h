// store/block_prefetch.h -- blocks on their way into the host tier. The caller learns at once where
// every block's bytes will be, and may read section s of all of them as soon as WaitSection(s) is
// ok: sections arrive in order (section 0 of every block first), each checked against its CRC32C
// when it is in place. A block that two prefetches want is read once. Made by BlockStore::Prefetch,
// which it must not outlive; one thread at a time, and no other than the store touches its bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <stop_token>
#include <vector>

#include "store/base/result.h"
#include "store/block_ref.h"
#include "store/transfer_queue.h"

namespace corpusd {

struct FetchStats;  // store/block_store.h

struct PrefetchOptions {
  TransferPriority priority = TransferPriority::kQuestion;
  std::stop_token stop{};
  double deadline = 0;  // in SteadySeconds(): waiting ends with kDeadlineExceeded; 0: no deadline
};

class BlockPrefetch {
 public:
  // Reads that nobody else wants and that have not begun are dropped, and their memory is free.
  virtual ~BlockPrefetch() = default;

  virtual size_t blocks() const = 0;
  // Where block i is or will be, 64-byte aligned; empty if it is known to be damaged or missing.
  // Valid while this lives, and after Finish while the BlockRef does.
  virtual std::span<const std::byte> bytes(size_t i) const = 0;
  virtual uint32_t tokens(size_t i) const = 0;  // 0 if bytes(i) is empty

  virtual bool HasSection(uint32_t section) = 0;
  // Blocks until section s of every block is in place and checked. kCorruption, kNotFound: a block
  // is damaged or missing, Finish says which. kIoError, kCancelled, kDeadlineExceeded.
  virtual Status WaitSection(uint32_t section) = 0;
  // Blocks until everything is there. RETURNS the leases in order; damaged or missing blocks are
  // invalid and listed in stats, to which the counts are added.
  virtual Result<std::vector<BlockRef>> Finish(FetchStats* stats) = 0;
};

}  // namespace corpusd
