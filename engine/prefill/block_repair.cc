#include "engine/prefill/block_repair.h"

#include <algorithm>

#include "engine/prefill/history_in_turn.h"
#include "engine/prefill/part_repair.h"

namespace corpusd {
namespace {

// The first mends what is known to be broken; the others what was found meanwhile.
constexpr int kRepairPassesMax = 3;

// Indices into the record's chain that a fetch of its blocks from `first` on found broken.
std::vector<size_t> BrokenBlocks(const FetchStats& stats, size_t first) {
  std::vector<size_t> broken;
  for (const auto* list : {&stats.damaged, &stats.missing}) {
    for (const size_t i : *list) broken.push_back(first + i);
  }
  std::sort(broken.begin(), broken.end());
  return broken;
}

// Computes the run that begins at block `run` over its history, and writes back those of its blocks
// that are broken (indices into the record's chain, from `run` on, in order).
Status MendRun(const ComputeContext& context, BlockStore& store, const CorpusRecord& record,
               std::span<const TokenId> tokens, size_t run, KvSequence& kv,
               std::span<const size_t> broken, ComputePriority priority,
               const std::stop_token& stop, LeasedCorpus* leased) {
  const size_t first_token = run * kBlockTokens;
  const auto run_tokens = tokens.subspan(
      first_token, std::min<size_t>(kRunTokens, record.durable_tokens - first_token));
  ASSIGN_OR_RETURN(const auto scratch,
                   ForwardScratch::Create(context.backend, context.model.config(),
                                          static_cast<uint32_t>(run_tokens.size())));
  RETURN_IF_ERROR(ComputeRun(context, run_tokens, kv, *scratch, priority, stop));
  leased->recomputed_tokens += run_tokens.size();
  ASSIGN_OR_RETURN(const auto writes, BlockWrites(context.backend, kv, record.chain, tokens, run));
  for (const size_t i : broken) {
    if (i >= run + writes.size()) break;
    RETURN_IF_ERROR(store.Repair(writes[i - run]));
    ++leased->repaired_blocks;
  }
  return OkStatus();
}

// The history of a broken run of a corpus without parts: leased, mended on the way, or read in
// turn.
Result<std::shared_ptr<KvSequence>> HistoryOfRun(const ComputeContext& context, BlockStore& store,
                                                 const CorpusRecord& before, const KvLayout& layout,
                                                 std::span<const TokenId> tokens,
                                                 const std::stop_token& stop,
                                                 HistoryInTurn* history) {
  const size_t run = before.chain.size();
  if (run > history->leased_max) return SequenceInTurn(store, before, layout.OfBlocks(), history);
  LeasedCorpus& leased = history->leased;
  const Status whole =
      ExtendLease(context, store, before, layout, tokens, ComputePriority::kPrefill, stop, &leased);
  if (whole.code() == StatusCode::kResourceExhausted) {
    return whole.WithContext("corpus '" + before.name + "': block " + std::to_string(run) +
                             " and what is broken behind it stay so (repaired: " +
                             std::to_string(leased.repaired_blocks) +
                             "), since computing it takes the " + std::to_string(run) +
                             " blocks before it in host memory at once");
  }
  RETURN_IF_ERROR(whole);
  return std::shared_ptr<KvSequence>(SequenceOver(leased.refs, layout.OfBlocks()));
}

// Of a corpus without parts.
Status RepairBlocks(const ComputeContext& context, BlockStore& store, const CorpusRecord& record,
                    const KvLayout& layout, std::span<const TokenId> tokens,
                    const std::stop_token& stop, LeasedCorpus* counts) {
  ASSIGN_OR_RETURN(const auto presence, store.Presence(record.chain));
  HistoryInTurn history;  // grows from one broken run to the next
  history.leased_max = LeasedBlocksMax(context.backend, store, layout, record.chain.size());
  Status status;
  for (size_t i = 0; i < presence.size() && status.ok();) {
    if (presence[i] == BlockPresence::kStored) {
      ++i;
      continue;
    }
    CorpusRecord before = record;
    const size_t run = i / kRunBlocks * kRunBlocks;
    before.chain.resize(run);
    before.durable_tokens = run * kBlockTokens;
    std::vector<size_t> broken;
    for (; i < std::min(run + kRunBlocks, presence.size()); ++i) {
      if (presence[i] != BlockPresence::kStored) broken.push_back(i);
    }
    const auto kv = HistoryOfRun(context, store, before, layout, tokens, stop, &history);
    status = kv.status();
    if (!kv.ok()) break;
    status = MendRun(context, store, record, tokens, run, **kv, broken, ComputePriority::kPrefill,
                     stop, &history.leased);
  }
  counts->repaired_blocks += history.leased.repaired_blocks;
  counts->recomputed_tokens += history.leased.recomputed_tokens;
  return status;
}

}  // namespace

void AddFetch(const FetchStats& fetch, FetchStats* sum) {
  sum->host_bytes += fetch.host_bytes;
  sum->disk_bytes += fetch.disk_bytes;
  sum->device_bytes += fetch.device_bytes;
  sum->seconds += fetch.seconds;
  sum->waited_seconds += fetch.waited_seconds;
}

Status ExtendLease(const ComputeContext& context, BlockStore& store, const CorpusRecord& record,
                   const KvLayout& layout, std::span<const TokenId> tokens,
                   ComputePriority priority, const std::stop_token& stop, LeasedCorpus* leased) {
  if (layout.parts != nullptr) {
    return ExtendLeaseWithParts(context, store, record, layout, tokens, priority, stop, leased);
  }
  const size_t first = leased->refs.size();
  CHECK(first <= record.chain.size()) << first << " leased of " << record.chain.size();
  const auto wanted = std::span(record.chain).subspan(first);
  if (wanted.empty()) return OkStatus();
  // Every pass repairs one run, so passes are bounded by the runs; the first pass is the rule.
  const size_t passes = wanted.size() / kRunBlocks + 3;
  for (size_t pass = 0; pass < passes; ++pass) {
    FetchStats stats;
    ASSIGN_OR_RETURN(auto refs, store.Fetch(wanted, &stats));
    if (pass > 0) stats.host_bytes = 0;  // the same blocks again
    AddFetch(stats, &leased->stats);
    const auto broken = BrokenBlocks(stats, first);
    std::vector<BlockRef> whole = leased->refs;
    whole.insert(whole.end(), refs.begin(), refs.end());
    if (broken.empty()) {
      leased->refs = std::move(whole);
      return OkStatus();
    }
    const size_t run = broken.front() / kRunBlocks * kRunBlocks;
    const auto kv = SequenceOver(std::span(whole).first(run), layout.OfBlocks());
    RETURN_IF_ERROR(
        MendRun(context, store, record, tokens, run, *kv, broken, priority, stop, leased));
  }
  return CorruptionError("corpus '" + record.name +
                         "': blocks stay damaged after being written again: is the disk failing?");
}

Status LeaseBeginning(BlockStore& store, const CorpusRecord& record, const KvLayout& layout,
                      size_t blocks, LeasedCorpus* leased) {
  const size_t first = leased->refs.size();
  FetchStats stats;
  if (first < blocks) {
    ASSIGN_OR_RETURN(const auto refs,
                     store.Fetch(std::span(record.chain).subspan(first, blocks - first), &stats));
    leased->refs.insert(leased->refs.end(), refs.begin(), refs.end());
  }
  bool whole = stats.damaged.empty() && stats.missing.empty();
  if (layout.parts != nullptr) {
    ASSIGN_OR_RETURN(const bool seen, leased->local.Fetch(store, layout, record.chain,
                                                          record.durable_tokens, &stats));
    whole = whole && seen;
  }
  AddFetch(stats, &leased->stats);
  if (whole) return OkStatus();
  leased->refs.resize(first);
  return CorruptionError("corpus '" + record.name + "': what its prefill reads is damaged: " +
                         "corpusctl verify --repair " + record.name);
}

Result<RepairCounts> RepairInPieces(const ComputeContext& context, BlockStore& store,
                                    const CorpusRecord& record, const KvLayout& layout,
                                    std::span<const TokenId> tokens, const std::stop_token& stop) {
  RepairCounts counts;
  for (int pass = 1;; ++pass) {
    LeasedCorpus mended;
    const Status status = layout.parts != nullptr
                              ? RepairWithParts(context, store, record, layout, tokens,
                                                ComputePriority::kPrefill, stop, &mended)
                              : RepairBlocks(context, store, record, layout, tokens, stop, &mended);
    counts.blocks += mended.repaired_blocks;
    counts.recomputed_tokens += mended.recomputed_tokens;
    if (status.ok()) return counts;
    // What a run found damaged before it is known from now on.
    if (status.code() != StatusCode::kCorruption || pass == kRepairPassesMax) return status;
  }
}

Result<LeasedCorpus> LeaseWhole(const ComputeContext& context, BlockStore& store,
                                const CorpusRecord& record, const KvLayout& layout,
                                std::span<const TokenId> tokens, ComputePriority priority,
                                const std::stop_token& stop) {
  LeasedCorpus leased;
  RETURN_IF_ERROR(ExtendLease(context, store, record, layout, tokens, priority, stop, &leased));
  return leased;
}

}  // namespace corpusd
