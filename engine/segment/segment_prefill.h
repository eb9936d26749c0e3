// engine/segment/segment_prefill.h -- makes all blocks of a segmented corpus durable, in order:
// adopts what the store has, computes the rest segment by segment, publishes several at once.
// Memory is that of one publish, whatever the corpus. One thread.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <stop_token>
#include <vector>

#include "engine/engine.h"
#include "engine/segment/segment_runner.h"

namespace corpusd {

// Told of every block that is durable now, in any order, once; blocks that were adopted come
// without bytes. May be empty.
using DurableBlock = std::function<Status(uint64_t block, std::span<const std::byte> bytes)>;

struct SegmentPrefillTask {
  const ComputeContext& context;
  BlockStore& store;
  const SegmentedText& text;
  const KvLayout& layout;  // with the sinks of its preamble
  const std::stop_token& stop;
};

// Brings `record`, whose stored chain is a prefix of the text's, to the whole chain; keeps it what
// the store holds. kCancelled if stopped: what was published stays.
Status PrefillSegments(const SegmentPrefillTask& task, CorpusRecord* record,
                       const std::function<void(const PrefillProgress&)>& progress,
                       const DurableBlock& on_block);

// Leases blocks [by index into the text's chain], computing those again that are damaged or
// missing, with the whole segment they are in. The first of `leased` are those of the preamble.
struct SegmentLease {
  std::vector<BlockRef> preamble;
  std::vector<BlockRef> blocks;  // in the order asked for
  FetchStats stats;
  uint64_t recomputed_tokens = 0;
};
Result<SegmentLease> LeaseSegments(const SegmentPrefillTask& task, std::span<const uint64_t> blocks,
                                   ComputePriority priority);

// Computes blocks that are known to be damaged or missing again and writes them back. RETURNS how
// many.
Result<uint64_t> RepairSegments(const SegmentPrefillTask& task, const CorpusRecord& record);

}  // namespace corpusd
