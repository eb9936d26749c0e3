// What gives a corpus of a DurableBlockStore another name, or takes its name away.
#include <algorithm>

#include "store/base/clock.h"
#include "store/durable_block_store.h"
#include "store/pin_ledger.h"

namespace corpusd {

Status DurableBlockStore::RenameCorpus(std::string_view from, std::string_view to) {
  const std::lock_guard lock(mutex_);
  const CorpusRecord* const current = catalog_->Find(from);
  if (current == nullptr) return NoCorpusError(from);
  if (catalog_->Find(to) != nullptr) {
    return AlreadyExistsError("corpus '" + std::string(to) + "' exists already");
  }
  CorpusRecord record = *current;
  record.name = to;
  record.replaces.clear();
  ++record.generation;
  Catalog::Change change;
  change.PutRecord(record, current);
  return CommitLocked(change, /*sync=*/true);
}

Result<DurableBlockStore::Departure> DurableBlockStore::RemoveLocked(const CorpusRecord& record,
                                                                     Catalog::Change* change) {
  Departure gone;
  const bool expired = record.expires_at_ms != 0 && record.expires_at_ms <= WallTimeMs();
  gone.reason = expired ? EvictionReason::kExpired : EvictionReason::kRemoved;
  RETURN_IF_ERROR(ReleaseLocked(AllDigests(record), change, &gone));
  change->RemoveRecord(record);
  NoteGoneLocked(record, 0, gone.reason, "", change);
  return gone;
}

void DurableBlockStore::ForgetLocked(uint64_t corpus_id) {
  published_ms_.erase(corpus_id);
  seeded_heats_.erase(corpus_id);
  sidecars_->Remove(corpus_id);
}

Status DurableBlockStore::RemoveCorpus(std::string_view name) {
  {
    const std::lock_guard lock(mutex_);
    const CorpusRecord* const current = catalog_->Find(name);
    if (current == nullptr) return NoCorpusError(name);
    const CorpusRecord record = *current;
    Catalog::Change change;
    ASSIGN_OR_RETURN(const Departure gone, RemoveLocked(record, &change));
    RETURN_IF_ERROR(CommitLocked(change, /*sync=*/true));
    Tell(gone);
    ForgetLocked(record.id);
  }
  RefreshPins();
  ReclaimSpace();
  return OkStatus();
}

Result<CorpusRecord> DurableBlockStore::ReplaceCorpus(std::string_view from, std::string_view to,
                                                      std::string_view previous,
                                                      int64_t previous_expires_at_ms) {
  CHECK(from != to && from != previous && to != previous);
  CorpusRecord next;
  Departure gone;
  bool removes = false;
  {
    const std::lock_guard lock(mutex_);
    const CorpusRecord* const made = catalog_->Find(from);
    if (made == nullptr) return NoCorpusError(from);
    const CorpusRecord* const old = catalog_->Find(to);
    if (old == nullptr) return NoCorpusError(to);
    const std::string what =
        "corpus '" + made->name + "' cannot take the place of '" + old->name + "': ";
    if (made->state != CorpusState::kReady || made->replaces != to) {
      return FailedPreconditionError(
          what + (made->replaces == to ? "it is " + std::string(CorpusStateText(made->state))
                                       : "it was not made to"));
    }
    next = *made;
    next.name = old->name;
    next.replaces.clear();
    next.pin = old->pin;
    next.expires_at_ms = old->expires_at_ms;
    next.priority = old->priority;
    next.created_at_ms = old->created_at_ms;
    next.last_used_at_ms = std::max(made->last_used_at_ms, old->last_used_at_ms);
    ++next.generation;
    RETURN_IF_ERROR(CheckPinLocked(next, old));
    CorpusRecord before = *old;
    before.name = previous;
    before.pin.reset();
    before.priority = RetentionPriority::kLow;
    before.expires_at_ms = previous_expires_at_ms;
    ++before.generation;
    Catalog::Change change;
    change.PutRecord(next, made);
    change.PutRecord(before, old);
    change.PutRoot(next);
    // What was asked much stays as dear, whatever its text is now.
    const Heat own = HeatOfLocked(next.id), inherited = HeatOfLocked(before.id);
    if (disk_policy_.Rank(inherited) > disk_policy_.Rank(own)) change.PutHeat(next, inherited);
    const CorpusRecord* const oldest = catalog_->Find(previous);
    const uint64_t oldest_id = oldest == nullptr ? 0 : oldest->id;
    if (oldest != nullptr) {
      if (PinHolds(*oldest, WallTimeMs())) {
        return FailedPreconditionError(what + "corpus '" + oldest->name +
                                       "', which goes then, is pinned: unpin or rename it first");
      }
      ASSIGN_OR_RETURN(gone, RemoveLocked(*oldest, &change));
      removes = true;
    }
    RETURN_IF_ERROR(CommitLocked(change, /*sync=*/true));
    Tell(gone);
    if (removes) ForgetLocked(oldest_id);
  }
  RefreshPins();
  if (removes) ReclaimSpace();
  return next;
}

}  // namespace corpusd
