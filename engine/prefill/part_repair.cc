#include "engine/prefill/part_repair.h"

#include <algorithm>
#include <optional>
#include <set>

#include "engine/prefill/history_in_turn.h"

namespace corpusd {
namespace {

// The first finds what is broken, the second that it is mended; the third is for what broke since.
constexpr int kPassesMax = 3;

// Leases those of the blocks that `refs` lacks, if all of them are there.
Status LeaseBlocks(BlockStore& store, std::span<const Digest> blocks, std::vector<BlockRef>* refs,
                   FetchStats* stats) {
  CHECK(refs->size() <= blocks.size()) << refs->size() << " leased of " << blocks.size();
  if (refs->size() == blocks.size()) return OkStatus();
  ASSIGN_OR_RETURN(const auto more, store.Fetch(blocks.subspan(refs->size()), stats));
  if (!stats->damaged.empty() || !stats->missing.empty()) return OkStatus();
  refs->insert(refs->end(), more.begin(), more.end());
  return OkStatus();
}

// Computes runs that were computed before, from a restore point on, and mends what is broken of
// their blocks and parts.
class Replay {
 public:
  Replay(const ComputeContext& context, BlockStore& store, const CorpusRecord& record,
         const KvLayout& layout, std::span<const TokenId> tokens, uint64_t point)
      : context_(context),
        store_(store),
        record_(record),
        layout_(layout),
        tokens_(tokens),
        position_(point) {
    history_.leased_max = LeasedBlocksMax(context.backend, store, layout, record.chain.size());
  }

  uint64_t position() const { return position_; }

  // REQUIRES: a border of runs, or the record's end.
  Status To(uint64_t end, ComputePriority priority, const std::stop_token& stop,
            LeasedCorpus* counts) {
    while (position_ < end) RETURN_IF_ERROR(Run(priority, stop, counts));
    return OkStatus();
  }

 private:
  // A sequence over what lies before position_.
  Result<std::shared_ptr<KvSequence>> SequenceBefore() {
    const size_t blocks = position_ / kBlockTokens;
    if (blocks > history_.leased_max) {
      CorpusRecord before = record_;
      before.chain.resize(blocks);
      before.durable_tokens = position_;
      return SequenceInTurn(store_, before, layout_.OfBlocks(), &history_);
    }
    LeasedCorpus& leased = history_.leased;
    FetchStats stats;
    RETURN_IF_ERROR(
        LeaseBlocks(store_, std::span(record_.chain).first(blocks), &leased.refs, &stats));
    const bool whole = stats.damaged.empty() && stats.missing.empty();
    ASSIGN_OR_RETURN(const bool seen,
                     leased.local.Fetch(store_, layout_, record_.chain, position_, &stats));
    if (whole && seen) {
      return std::shared_ptr<KvSequence>(
          SequenceOver(leased.refs, layout_.OfBlocks(), {}, &leased.local));
    }
    return CorruptionError("corpus '" + record_.name + "': what lies before token " +
                           std::to_string(position_) + " is damaged again");
  }

  Status Run(ComputePriority priority, const std::stop_token& stop, LeasedCorpus* counts) {
    ASSIGN_OR_RETURN(const auto kv, SequenceBefore());
    const auto run_tokens = tokens_.subspan(
        position_, std::min<uint64_t>(kRunTokens, record_.durable_tokens - position_));
    ASSIGN_OR_RETURN(const auto scratch,
                     ForwardScratch::Create(context_.backend, context_.model.config(),
                                            static_cast<uint32_t>(run_tokens.size())));
    RETURN_IF_ERROR(ComputeRun(context_, run_tokens, *kv, *scratch, priority, stop));
    counts->recomputed_tokens += run_tokens.size();
    const size_t first_block = position_ / kBlockTokens;
    ASSIGN_OR_RETURN(const auto writes,
                     BlockWrites(context_.backend, *kv, record_.chain, tokens_, first_block));
    RETURN_IF_ERROR(Mend(writes, first_block, counts));
    history_.leased.local.Keep(kv, first_block);
    position_ += run_tokens.size();
    return OkStatus();
  }

  Status Mend(std::span<const BlockWrite> writes, size_t first_block, LeasedCorpus* counts) {
    std::vector<BlockWrite> all(writes.begin(), writes.end());
    for (const HeldPart& held : HeldParts(record_)) {
      if (held.block < first_block || held.block >= first_block + writes.size()) continue;
      const BlockWrite& block = writes[held.block - first_block];
      all.push_back({held.digest,
                     block.tokens,
                     block.parts[held.part],
                     record_.parts[held.part].sections,
                     {}});
    }
    std::vector<Digest> digests;
    for (const BlockWrite& write : all) digests.push_back(write.digest);
    ASSIGN_OR_RETURN(const auto presence, store_.Presence(digests));
    for (size_t i = 0; i < all.size(); ++i) {
      if (presence[i] == BlockPresence::kStored) continue;
      RETURN_IF_ERROR(store_.Repair(all[i]));
      ++counts->repaired_blocks;
    }
    return OkStatus();
  }

  const ComputeContext& context_;
  BlockStore& store_;
  const CorpusRecord& record_;
  const KvLayout& layout_;
  const std::span<const TokenId> tokens_;
  uint64_t position_;
  HistoryInTurn history_;  // before position_
};

// The runs that hold something broken.
Result<std::set<uint64_t>> BrokenRuns(const BlockStore& store, const CorpusRecord& record) {
  std::set<uint64_t> runs;
  ASSIGN_OR_RETURN(const auto blocks, store.Presence(record.chain));
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (blocks[i] != BlockPresence::kStored) runs.insert(i / kRunBlocks);
  }
  const auto held = HeldParts(record);
  ASSIGN_OR_RETURN(const auto parts, store.Presence(PartDigests(record)));
  for (size_t i = 0; i < held.size(); ++i) {
    if (parts[i] != BlockPresence::kStored) runs.insert(held[i].block / kRunBlocks);
  }
  return runs;
}

}  // namespace

Status RepairWithParts(const ComputeContext& context, BlockStore& store, const CorpusRecord& record,
                       const KvLayout& layout, std::span<const TokenId> tokens,
                       ComputePriority priority, const std::stop_token& stop,
                       LeasedCorpus* counts) {
  ASSIGN_OR_RETURN(const auto runs, BrokenRuns(store, record));
  std::optional<Replay> replay;
  for (const uint64_t run : runs) {
    const uint64_t begin = run * kRunTokens;
    const uint64_t end = std::min<uint64_t>(begin + kRunTokens, record.durable_tokens);
    if (replay && end <= replay->position()) continue;
    // Anew: what lies before is mended by now.
    StoredParts stored(store, layout, record.chain);
    ASSIGN_OR_RETURN(const uint64_t point, stored.RestorePoint(begin));
    if (!replay || point > replay->position()) {
      replay.emplace(context, store, record, layout, tokens, point);
    }
    RETURN_IF_ERROR(replay->To(end, priority, stop, counts));
  }
  return OkStatus();
}

Status ExtendLeaseWithParts(const ComputeContext& context, BlockStore& store,
                            const CorpusRecord& record, const KvLayout& layout,
                            std::span<const TokenId> tokens, ComputePriority priority,
                            const std::stop_token& stop, LeasedCorpus* leased) {
  for (int pass = 0; pass < kPassesMax; ++pass) {
    FetchStats stats;
    RETURN_IF_ERROR(LeaseBlocks(store, record.chain, &leased->refs, &stats));
    const bool whole = stats.damaged.empty() && stats.missing.empty();
    const uint64_t position = std::max(record.durable_tokens, leased->computed_tokens);
    ASSIGN_OR_RETURN(const bool seen,
                     leased->local.Fetch(store, layout, record.chain, position, &stats));
    leased->stats.host_bytes += pass == 0 ? stats.host_bytes : 0;
    leased->stats.disk_bytes += stats.disk_bytes;
    leased->stats.seconds += stats.seconds;
    leased->stats.waited_seconds += stats.waited_seconds;
    if (whole && seen) return OkStatus();
    RETURN_IF_ERROR(
        RepairWithParts(context, store, record, layout, tokens, priority, stop, leased));
  }
  return CorruptionError("corpus '" + record.name +
                         "': blocks stay damaged after being written again: is the disk failing?");
}

}  // namespace corpusd
