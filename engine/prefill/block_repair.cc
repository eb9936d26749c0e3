#include "engine/prefill/block_repair.h"

#include <algorithm>

namespace corpusd {
namespace {

// First index that is damaged or missing, or none.
bool FirstBroken(const FetchStats& stats, size_t* index) {
  bool found = false;
  for (const auto* list : {&stats.damaged, &stats.missing}) {
    for (const size_t i : *list) {
      *index = found ? std::min(*index, i) : i;
      found = true;
    }
  }
  return found;
}

}  // namespace

Result<LeasedCorpus> LeaseWhole(const ComputeContext& context, BlockStore& store,
                                const CorpusRecord& record, const KvFormat& format,
                                std::span<const TokenId> tokens, ComputePriority priority,
                                const std::stop_token& stop) {
  LeasedCorpus leased;
  // Every pass repairs one run, so passes are bounded by the runs; the first pass is the rule.
  const size_t passes = record.chain.size() / kRunBlocks + 2;
  for (size_t pass = 0; pass < passes; ++pass) {
    FetchStats stats;
    ASSIGN_OR_RETURN(leased.refs, store.Fetch(record.chain, &stats));
    leased.stats.host_bytes += pass == 0 ? stats.host_bytes : 0;
    leased.stats.disk_bytes += stats.disk_bytes;
    leased.stats.seconds += stats.seconds;
    size_t broken = 0;
    if (!FirstBroken(stats, &broken)) return leased;

    const size_t run = broken / kRunBlocks * kRunBlocks;
    const size_t run_end = std::min(run + kRunBlocks, record.chain.size());
    const auto history = std::span(leased.refs).first(run);
    const auto kv = SequenceOver(history, format, format);
    const size_t first_token = run * kBlockTokens;
    const auto run_tokens = tokens.subspan(
        first_token, std::min<size_t>(kRunTokens, record.durable_tokens - first_token));
    ASSIGN_OR_RETURN(const auto scratch,
                     ForwardScratch::Create(context.backend, context.model.config(),
                                            static_cast<uint32_t>(run_tokens.size())));
    RETURN_IF_ERROR(ComputeRun(context, run_tokens, *kv, *scratch, priority, stop));
    leased.recomputed_tokens += run_tokens.size();
    const auto writes = BlockWrites(*kv, record.chain, tokens, run);
    for (size_t i = run; i < run_end; ++i) {
      const bool damaged =
          std::find(stats.damaged.begin(), stats.damaged.end(), i) != stats.damaged.end();
      const bool missing =
          std::find(stats.missing.begin(), stats.missing.end(), i) != stats.missing.end();
      if (!damaged && !missing) continue;
      RETURN_IF_ERROR(store.Repair(writes[i - run]));
      ++leased.repaired_blocks;
    }
  }
  return CorruptionError("corpus '" + record.name +
                         "': blocks stay damaged after being written again: is the disk failing?");
}

}  // namespace corpusd
