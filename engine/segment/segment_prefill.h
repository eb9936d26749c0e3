// engine/segment/segment_prefill.h -- makes all blocks of a segmented corpus durable, in order:
// adopts what the store has, computes the rest, several segments at once, and publishes them while
// the next are computed. Memory is that of two publishes, whatever the corpus. Called by one
// thread.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <stop_token>
#include <vector>

#include "engine/engine.h"
#include "engine/prefill/block_repair.h"
#include "engine/segment/segment_runner.h"

namespace corpusd {

// Told of the blocks from `first` on that are durable now, in order, each once, by one thread at a
// time; blocks that were adopted come without bytes. May be empty.
using DurableBlocks =
    std::function<Status(uint64_t first, std::span<const std::span<const std::byte>> payloads)>;

class RankLeader;  // engine/ranks/rank_leader.h

struct SegmentPrefillTask {
  const ComputeContext& context;
  BlockStore& store;
  const SegmentedText& text;
  const KvLayout& layout;  // with the sinks of its preamble
  const std::stop_token& stop;
  std::shared_ptr<RankLeader> ranks = nullptr;  // to which segments are dealt; null: this one alone
};

// Brings `record`, whose stored chain is a prefix of the text's, to the whole chain; keeps it what
// the store holds. kCancelled if stopped: what was published stays.
Status PrefillSegments(const SegmentPrefillTask& task, CorpusRecord* record,
                       const std::function<void(const PrefillProgress&)>& progress,
                       const DurableBlocks& on_blocks);

// Leased blocks of a segmented corpus, in the order asked for.
struct SegmentLease {
  // Where the backend reads them; what keeps them there.
  std::vector<KvSequence::SharedPage> pages;
  std::vector<BlockRef> refs;
  std::vector<DeviceRef> placed;
  std::vector<std::unique_ptr<Buffer>> copies;  // of blocks that a device's tier did not take
  FetchStats stats;
  uint64_t recomputed_tokens = 0;
};
// Leases the preamble's blocks, or others [by index into the text's chain] behind the leased
// preamble; computes those again that are damaged or missing, with the whole segment they are in.
Result<SegmentLease> LeasePreamble(const SegmentPrefillTask& task, ComputePriority priority);
Result<SegmentLease> LeaseBlocks(const SegmentPrefillTask& task,
                                 std::span<const KvSequence::SharedPage> preamble,
                                 std::span<const uint64_t> blocks, ComputePriority priority);

// Computes blocks that are known to be damaged or missing again and writes them back. RETURNS how
// many.
Result<uint64_t> RepairSegments(const SegmentPrefillTask& task, const CorpusRecord& record);

}  // namespace corpusd
