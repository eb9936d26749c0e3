#include "engine/prefill/history_in_turn.h"

#include <algorithm>

namespace corpusd {

size_t LeasedBlocksMax(const Backend& backend, BlockStore& store, const KvLayout& layout,
                       size_t blocks) {
  constexpr uint64_t kPage = 4096;
  if (!backend.host_addressable() || SectionSourceOf(&store) == nullptr) return SIZE_MAX;
  const uint64_t block_bytes =
      (StoredBytes(layout.OfPart(layout.blocks, 0)) + kPage - 1) / kPage * kPage;
  for (const TierUsage& tier : store.Usage()) {
    if (tier.name != "host") continue;
    if (blocks <= tier.capacity_bytes / 8 * 7 / block_bytes) return SIZE_MAX;
    // What layers with a span see is leased beside them.
    uint64_t seen = 0;
    for (size_t p = 1; p < layout.part_count(); ++p) {
      const uint64_t blocks_seen = layout.parts->parts[p].span_tokens / kBlockTokens + 1;
      seen += blocks_seen * (StoredBytes(layout.OfPart(layout.blocks, p)) + kPage);
    }
    const uint64_t usable = tier.capacity_bytes / 8 * 7;
    const uint64_t room = std::min(tier.capacity_bytes / 2, usable - std::min(usable, seen));
    // With the sinks' page, whole parts of attention.
    const size_t sinks = layout.sinks == nullptr ? 0 : 1;
    const uint64_t fit = room / block_bytes + sinks;
    return std::max<uint64_t>(fit / kPartPages * kPartPages, sinks * kPartPages) - sinks;
  }
  return SIZE_MAX;
}

Result<std::shared_ptr<KvSequence>> SequenceInTurn(BlockStore& store, const CorpusRecord& record,
                                                   const KvLayout& layout, HistoryInTurn* history) {
  LeasedCorpus& leased = history->leased;
  const size_t first = history->leased_max;
  RETURN_IF_ERROR(LeaseBeginning(store, record, layout, first, &leased));
  std::shared_ptr<KvSequence> kv = SequenceOver(leased.refs, layout, {}, &leased.local);
  // One reader for all runs: a new one would look the whole history up again.
  auto& reader = history->reader;
  const size_t known =
      reader == nullptr ? 0 : std::min(reader->blocks(), record.chain.size() - first);
  const auto more = std::span(record.chain).subspan(first + known);
  if (reader == nullptr) {
    ASSIGN_OR_RETURN(reader, SectionSourceOf(&store)->ReadInTurn(more));
  } else if (!more.empty()) {
    RETURN_IF_ERROR(reader->Append(more));
  }
  for (size_t i = first; i < record.chain.size(); ++i) {
    const uint64_t behind = record.durable_tokens - i * kBlockTokens;
    kv->AddShared({nullptr, static_cast<uint32_t>(std::min<uint64_t>(behind, kBlockTokens)), 0,
                   leased.local.Of(i, layout.part_count())});
  }
  kv->ReadInTurn({reader.get(), first, record.chain.size() - first});
  return kv;
}

}  // namespace corpusd
