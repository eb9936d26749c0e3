// What makes blocks leave a DurableBlockStore: on request, and when something new needs the room.
// Two phases: the catalogue forgets them in one durable batch, then their bytes go, those in memory
// when the last lease ends.
#include <algorithm>
#include <tuple>

#include "store/base/clock.h"
#include "store/durable_block_store.h"

namespace corpusd {
namespace {

// Shared blocks stay for the others.
void CountGone(const ChainEntry& entry, EvictReport* report) {
  if (entry.references == 1) {
    ++report->blocks;
    report->bytes += entry.payload_bytes;
  } else if (entry.references > 1) {
    ++report->shared_blocks;
  }
}

}  // namespace

void DurableBlockStore::NoteGoneLocked(const CorpusRecord& record, size_t first_block,
                                       EvictionReason reason, std::string detail,
                                       Catalog::Change* change) {
  if (first_block >= record.chain.size()) return;
  EvictionNote note;
  note.corpus = record.name;
  note.corpus_id = record.id;
  note.first_block = first_block;
  note.blocks = record.chain.size() - first_block;
  CorpusRecord left = record;
  ClipParts(first_block, &left.parts);
  note.bytes = note.blocks * record.block_bytes + HeldPartBytes(record) - HeldPartBytes(left);
  note.first_digest = record.chain[first_block];
  note.when_ms = WallTimeMs();
  note.reason = reason;
  note.detail = std::move(detail);
  catalog_->NoteEviction(std::move(note), change);
}

std::vector<EvictionNote> DurableBlockStore::EvictionNotes() const {
  const std::lock_guard lock(mutex_);
  return catalog_->EvictionNotes();
}

Result<EvictReport> DurableBlockStore::CutTailLocked(const CorpusRecord& record, size_t keep,
                                                     EvictionReason reason, std::string detail) {
  const std::span<const Digest> tail = std::span(record.chain).subspan(keep);
  ASSIGN_OR_RETURN(const auto entries, catalog_->Entries(tail));
  EvictReport report;
  CorpusRecord cut = record;
  for (const ChainEntry& entry : entries) {
    cut.durable_tokens -= std::min<uint64_t>(cut.durable_tokens, entry.tokens);
    CountGone(entry, &report);
  }
  for (const HeldPart& held : HeldParts(record)) {
    if (held.block < keep) continue;
    const auto entry = catalog_->Entry(held.digest);
    if (entry.ok() && entry->references == 1) report.bytes += entry->payload_bytes;
  }
  cut.chain.resize(keep);
  if (cut.state == CorpusState::kReady) cut.state = CorpusState::kEvicted;
  Catalog::Change change;
  NoteGoneLocked(record, keep, reason, std::move(detail), &change);
  RETURN_IF_ERROR(CommitRecordLocked(std::move(cut), record, &change).status());
  Tell({reason, report.blocks, report.bytes});
  if (keep == 0) sidecars_->Remove(record.id);  // made again with the blocks
  return report;
}

Result<EvictReport> DurableBlockStore::Evict(std::string_view name, TierKind from, bool dry_run) {
  ASSIGN_OR_RETURN(const CorpusRecord record, GetCorpus(name));
  if (from == TierKind::kDevice && device_ == nullptr) {
    return InvalidArgumentError("this daemon has no device tier to evict from");
  }
  const bool pinned =
      record.pin && (record.pin->expires_at_ms == 0 || record.pin->expires_at_ms > WallTimeMs());
  if (pinned && (from == TierKind::kDisk || record.pin->tier == static_cast<uint8_t>(from))) {
    return FailedPreconditionError("corpus '" + record.name + "' is pinned: unpin it first");
  }
  EvictReport report;
  if (from == TierKind::kDevice) {
    std::tie(report.blocks, report.bytes) = device_->table().Drop(AllDigests(record), dry_run);
    return report;
  }
  if (from == TierKind::kHost) {
    std::tie(report.blocks, report.bytes) = host_.Drop(AllDigests(record), dry_run);
    return report;
  }
  ASSIGN_OR_RETURN(const auto entries, catalog_->Entries(record.chain));
  for (const ChainEntry& entry : entries) CountGone(entry, &report);
  ASSIGN_OR_RETURN(const auto parts, catalog_->Entries(PartDigests(record)));
  for (const ChainEntry& entry : parts)
    report.bytes += entry.references == 1 ? entry.payload_bytes : 0;
  if (dry_run) return report;
  {
    const std::lock_guard lock(mutex_);
    ASSIGN_OR_RETURN(const CorpusRecord* const current, CurrentLocked(record));
    const CorpusRecord whole = *current;
    ASSIGN_OR_RETURN(report, CutTailLocked(whole, 0, EvictionReason::kAsked, ""));
  }
  RefreshPins();
  ReclaimSpace();
  return report;
}

}  // namespace corpusd
