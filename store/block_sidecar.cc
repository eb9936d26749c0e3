// The sidecars of a DurableBlockStore's corpora: room for them, and who they belong to.
#include <algorithm>

#include "store/durable_block_store.h"

namespace corpusd {

namespace {

constexpr int kRoomAttempts = 4;

}  // namespace

Result<CorpusRecord> DurableBlockStore::RecordOf(uint64_t corpus_id) const {
  const std::lock_guard lock(mutex_);
  for (const auto& [name, record] : catalog_->records()) {
    if (record.id == corpus_id) return record;
  }
  return NotFoundError("there is no corpus with id " + std::to_string(corpus_id));
}

Result<std::unique_ptr<SidecarStore::Draft>> DurableBlockStore::BeginSidecar(
    const CorpusRecord& record, std::string_view kind, uint64_t bytes) {
  const uint64_t needed_bytes = SidecarStore::DiskBytes(bytes);
  for (int attempt = 1;; ++attempt) {
    RETURN_IF_ERROR(MakeRoom(needed_bytes, record, record.name));
    const std::lock_guard lock(payload_mutex_);
    const Status room = CheckDiskRoom(needed_bytes);
    if (!room.ok() && options_.evict_disk && attempt < kRoomAttempts) continue;
    RETURN_IF_ERROR(room);
    return sidecars_->Begin(record.id, kind, bytes);
  }
}

Status DurableBlockStore::PutSidecarParts(uint64_t corpus_id, std::string_view kind,
                                          std::span<const std::span<const std::byte>> parts) {
  RETURN_IF_ERROR(SidecarStore::CheckKind(kind));
  ASSIGN_OR_RETURN(const CorpusRecord record, RecordOf(corpus_id));
  const std::string what =
      "storing the " + std::string(kind) + " data of corpus '" + record.name + "'";
  RETURN_IF_ERROR(gate_.Admit(what));
  const uint64_t bytes = SidecarStore::TotalBytes(parts);
  auto draft = BeginSidecar(record, kind, bytes);
  if (!draft.ok()) return draft.status().WithContext(what);
  const uint64_t needed_bytes = SidecarStore::DiskBytes(bytes);
  RETURN_IF_ERROR(gate_.Observe(sidecars_->Write(**draft, parts), needed_bytes).WithContext(what));
  // A corpus that goes takes its sidecars along under this mutex: none comes after it.
  const std::lock_guard lock(mutex_);
  const bool here = std::any_of(catalog_->records().begin(), catalog_->records().end(),
                                [&](const auto& item) { return item.second.id == corpus_id; });
  if (!here) return NotFoundError(what + ": it was removed meanwhile");
  return gate_.Observe(sidecars_->Publish(draft->get()), 0).WithContext(what);
}

Result<std::shared_ptr<const SidecarReader>> DurableBlockStore::OpenSidecar(
    uint64_t corpus_id, std::string_view kind) const {
  return sidecars_->Open(corpus_id, kind);
}

}  // namespace corpusd
