// engine/prefill/part_repair.h -- what block_repair.h does, for corpora whose layers are kept
// apart. What layers with a span saw at a place is not stored for every place, so that a broken
// block is computed again from the last restore point before it. Internal to block_repair.cc.
#pragma once

#include <span>
#include <stop_token>

#include "engine/prefill/block_repair.h"

namespace corpusd {

// As ExtendLease; also leases, in leased->local, what is seen from the record's end on.
Status ExtendLeaseWithParts(const ComputeContext& context, BlockStore& store,
                            const CorpusRecord& record, const KvLayout& layout,
                            std::span<const TokenId> tokens, ComputePriority priority,
                            const std::stop_token& stop, LeasedCorpus* leased);
// Computes and writes back what is known to be damaged or missing of the record's blocks and parts;
// adds to the counts.
Status RepairWithParts(const ComputeContext& context, BlockStore& store, const CorpusRecord& record,
                       const KvLayout& layout, std::span<const TokenId> tokens,
                       ComputePriority priority, const std::stop_token& stop, LeasedCorpus* counts);

}  // namespace corpusd
