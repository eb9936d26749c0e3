// engine/prefill/block_repair.h -- makes the leased blocks of a corpus whole: damaged and missing
// ones are computed again from their tokens, byte for byte, and written back under their digests.
#pragma once

#include <span>
#include <stop_token>
#include <vector>

#include "engine/prefill/local_parts.h"
#include "engine/prefill/prefill_runner.h"

namespace corpusd {

struct LeasedCorpus {
  std::vector<BlockRef> refs;      // all valid, in chain order
  LocalPages local;                // what layers of other parts see from the end of refs on, or
                                   // of what was computed behind it
  uint64_t computed_tokens = 0;    // where that ends, if it is not durable yet
  std::vector<DeviceRef> placed;   // of a prefix of refs: those on the device (PlaceOnDevice)
  FetchStats stats;                // of the fetches
  uint64_t recomputed_tokens = 0;  // of damaged blocks
  uint64_t repaired_blocks = 0;
};

// Adds the counts of a fetch to those before it.
void AddFetch(const FetchStats& fetch, FetchStats* sum);

// Leases the blocks of the record that `leased`, the leases of a prefix of it, lacks, repairing on
// the way. On an error the prefix stays leased.
Status ExtendLease(const ComputeContext& context, BlockStore& store, const CorpusRecord& record,
                   const KvLayout& layout, std::span<const TokenId> tokens,
                   ComputePriority priority, const std::stop_token& stop, LeasedCorpus* leased);
// Leases the record's first blocks until there are so many, and, of a layout with parts, what is
// seen from the record's end on. kCorruption: something is damaged or missing.
Status LeaseBeginning(BlockStore& store, const CorpusRecord& record, const KvLayout& layout,
                      size_t blocks, LeasedCorpus* leased);
struct RepairCounts {
  uint64_t blocks = 0;  // written back
  uint64_t recomputed_tokens = 0;
};
// Computes the blocks that are known to be damaged or missing again, run by run, each over what
// lies before it: leased as far as it fits, the rest read in turn, where the backend can.
// kResourceExhausted: it cannot, and the history of a broken run does not fit the host tier; those
// before it are repaired.
Result<RepairCounts> RepairInPieces(const ComputeContext& context, BlockStore& store,
                                    const CorpusRecord& record, const KvLayout& layout,
                                    std::span<const TokenId> tokens, const std::stop_token& stop);
// Leases every block of the record, repairing on the way.
Result<LeasedCorpus> LeaseWhole(const ComputeContext& context, BlockStore& store,
                                const CorpusRecord& record, const KvLayout& layout,
                                std::span<const TokenId> tokens, ComputePriority priority,
                                const std::stop_token& stop);

}  // namespace corpusd
