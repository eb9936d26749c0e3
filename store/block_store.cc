// The corpus side of DurableBlockStore: opening, records, names, usage. Blocks are in
// block_transfer.cc.
#include "store/block_store.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <chrono>
#include <filesystem>

#include "store/base/units.h"
#include "store/durable_block_store.h"

namespace corpusd {
namespace {

int64_t NowMs() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

Status NoSuchCorpus(std::string_view name) {
  return NotFoundError("corpus '" + std::string(name) + "' does not exist");
}

uint64_t FreeDiskBytes(const std::string& folder) {
  struct statvfs info {};
  if (statvfs(folder.c_str(), &info) != 0) return 0;
  return uint64_t{info.f_bavail} * info.f_frsize;
}

}  // namespace

Result<std::unique_ptr<BlockStore>> BlockStore::Open(const BlockStoreOptions& options) {
  std::error_code error;
  std::filesystem::create_directories(options.data_dir, error);
  if (error) {
    return IoError("cannot create the data folder " + options.data_dir + ": " + error.message());
  }
  ASSIGN_OR_RETURN(auto lock, FolderLock::Acquire(options.data_dir));
  ASSIGN_OR_RETURN(auto catalog, Catalog::Open(options.data_dir + "/catalog"));
  ASSIGN_OR_RETURN(auto payload, PayloadStore::Open(options.data_dir + "/payload"));
  // What a crash left between payload and catalogue belongs to nobody.
  RETURN_IF_ERROR(payload->DropAllBut(catalog->LiveExtents()));
  return std::make_unique<DurableBlockStore>(options, std::move(lock), std::move(catalog),
                                             std::move(payload));
}

DurableBlockStore::DurableBlockStore(const BlockStoreOptions& options,
                                     std::unique_ptr<FolderLock> lock,
                                     std::unique_ptr<Catalog> catalog,
                                     std::unique_ptr<PayloadStore> payload)
    : options_(options),
      lock_(std::move(lock)),
      catalog_(std::move(catalog)),
      payload_(std::move(payload)),
      host_(options.host_bytes) {
  RefreshPins();
}

Result<const CorpusRecord*> DurableBlockStore::CurrentLocked(const CorpusRecord& record) const {
  const CorpusRecord* const current = catalog_->Find(record.name);
  if (current == nullptr || current->id != record.id) return NoSuchCorpus(record.name);
  if (current->generation != record.generation) {
    return Status(StatusCode::kAborted,
                  "corpus '" + record.name + "' changed meanwhile (generation " +
                      std::to_string(current->generation) + ", not " +
                      std::to_string(record.generation) + "): read it again and retry");
  }
  return current;
}

Status DurableBlockStore::CommitLocked(const Catalog::Change& change, bool sync) {
  ASSIGN_OR_RETURN(const auto emptied, catalog_->Commit(change, sync));
  for (const uint64_t extent : emptied) RETURN_IF_ERROR(payload_->DropExtent(extent));
  return OkStatus();
}

Status DurableBlockStore::ReleaseLocked(std::span<const Digest> digests, Catalog::Change* change) {
  ASSIGN_OR_RETURN(auto entries, catalog_->Entries(digests));
  for (size_t i = 0; i < digests.size(); ++i) {
    if (entries[i].references == 0) continue;
    if (--entries[i].references == 0) {
      change->RemoveEntry(digests[i]);
      host_.Erase(digests[i]);
    } else {
      change->PutEntry(digests[i], entries[i]);
    }
  }
  return OkStatus();
}

Result<CorpusRecord> DurableBlockStore::CommitRecordLocked(CorpusRecord record,
                                                           const CorpusRecord& old,
                                                           Catalog::Change* change) {
  const size_t same = static_cast<size_t>(
      std::mismatch(record.chain.begin(), record.chain.end(), old.chain.begin(), old.chain.end())
          .first -
      record.chain.begin());
  if (same < old.chain.size()) {
    const std::vector<Digest> dropped(old.chain.begin() + static_cast<ptrdiff_t>(same),
                                      old.chain.end());
    RETURN_IF_ERROR(ReleaseLocked(dropped, change));
  }
  ++record.generation;
  change->PutRecord(record, same, old.chain.size());
  RETURN_IF_ERROR(CommitLocked(*change, /*sync=*/true));
  return record;
}

Result<CorpusRecord> DurableBlockStore::CreateCorpus(CorpusRecord record,
                                                     std::span<const TokenId> tokens) {
  const std::lock_guard lock(mutex_);
  if (catalog_->Find(record.name) != nullptr) {
    return AlreadyExistsError("corpus '" + record.name +
                              "' exists already: remove or rename it, or append to it");
  }
  record.id = catalog_->NextCorpusId();
  record.generation = 1;
  record.created_at_ms = NowMs();
  record.chain.clear();
  record.durable_tokens = 0;
  record.tokens = tokens.size();
  Catalog::Change change;
  change.PutTokens(record.id, tokens, 0);
  change.PutRecord(record, 0, 0);
  RETURN_IF_ERROR(CommitLocked(change, /*sync=*/true));
  return record;
}

Result<CorpusRecord> DurableBlockStore::GetCorpus(std::string_view name) const {
  const std::lock_guard lock(mutex_);
  const CorpusRecord* const record = catalog_->Find(name);
  if (record == nullptr) return NoSuchCorpus(name);
  return *record;
}

std::vector<CorpusRecord> DurableBlockStore::ListCorpora() const {
  const std::lock_guard lock(mutex_);
  std::vector<CorpusRecord> records;
  for (const auto& [name, record] : catalog_->records()) records.push_back(record);
  return records;
}

Result<std::vector<TokenId>> DurableBlockStore::CorpusTokens(std::string_view name) const {
  const std::lock_guard lock(mutex_);
  const CorpusRecord* const record = catalog_->Find(name);
  if (record == nullptr) return NoSuchCorpus(name);
  ASSIGN_OR_RETURN(auto tokens, catalog_->Tokens(record->id));
  if (tokens.size() != record->tokens) {
    return CorruptionError("corpus '" + record->name + "' should have " +
                           std::to_string(record->tokens) + " token ids, the catalogue holds " +
                           std::to_string(tokens.size()));
  }
  return tokens;
}

Result<CorpusRecord> DurableBlockStore::UpdateCorpus(const CorpusRecord& record) {
  CorpusRecord updated;
  {
    const std::lock_guard lock(mutex_);
    ASSIGN_OR_RETURN(const CorpusRecord* const current, CurrentLocked(record));
    CHECK(record.chain.size() <= current->chain.size()) << "UpdateCorpus adds no blocks";
    const CorpusRecord old = *current;
    Catalog::Change change;
    ASSIGN_OR_RETURN(updated, CommitRecordLocked(record, old, &change));
  }
  RefreshPins();
  return updated;
}

Result<CorpusRecord> DurableBlockStore::ReplaceTokens(const CorpusRecord& record,
                                                      std::span<const TokenId> tokens) {
  const std::lock_guard lock(mutex_);
  ASSIGN_OR_RETURN(const CorpusRecord* const current, CurrentLocked(record));
  const CorpusRecord old = *current;
  CorpusRecord changed = record;
  changed.tokens = tokens.size();
  Catalog::Change change;
  change.PutTokens(record.id, tokens, old.tokens);
  return CommitRecordLocked(std::move(changed), old, &change);
}

Status DurableBlockStore::NoteUse(std::string_view name) {
  const std::lock_guard lock(mutex_);
  const CorpusRecord* const current = catalog_->Find(name);
  if (current == nullptr) return NoSuchCorpus(name);
  CorpusRecord record = *current;
  record.last_used_at_ms = NowMs();
  Catalog::Change change;
  change.PutRecord(record, record.chain.size(), record.chain.size());
  return CommitLocked(change, /*sync=*/false);
}

Status DurableBlockStore::RenameCorpus(std::string_view from, std::string_view to) {
  const std::lock_guard lock(mutex_);
  const CorpusRecord* const current = catalog_->Find(from);
  if (current == nullptr) return NoSuchCorpus(from);
  if (catalog_->Find(to) != nullptr) {
    return AlreadyExistsError("corpus '" + std::string(to) + "' exists already");
  }
  CorpusRecord record = *current;
  record.name = to;
  ++record.generation;
  Catalog::Change change;
  change.PutRecord(record, record.chain.size(), record.chain.size());
  return CommitLocked(change, /*sync=*/true);
}

Status DurableBlockStore::RemoveCorpus(std::string_view name) {
  {
    const std::lock_guard lock(mutex_);
    const CorpusRecord* const current = catalog_->Find(name);
    if (current == nullptr) return NoSuchCorpus(name);
    const CorpusRecord record = *current;
    Catalog::Change change;
    RETURN_IF_ERROR(ReleaseLocked(record.chain, &change));
    change.RemoveRecord(record);
    RETURN_IF_ERROR(CommitLocked(change, /*sync=*/true));
  }
  RefreshPins();
  return OkStatus();
}

void DurableBlockStore::RefreshPins() {
  std::set<Digest> pinned;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [name, record] : catalog_->records()) {
      const bool host = record.pin && record.pin->tier == static_cast<uint8_t>(TierKind::kHost) &&
                        (record.pin->expires_at_ms == 0 || record.pin->expires_at_ms > NowMs());
      if (host && !record.chain.empty()) pinned.insert(record.chain.front());
    }
  }
  host_.SetPinnedGroups(std::move(pinned));
}

std::vector<TierUsage> DurableBlockStore::Usage() const {
  TierUsage host{"host", host_.capacity_bytes(), host_.used_bytes(), host_.PinnedBytes(), 0};
  host.free_bytes = host.capacity_bytes - std::min(host.capacity_bytes, host.used_bytes);
  TierUsage disk{"disk", options_.disk_bytes, payload_->PhysicalBytes() + catalog_->PhysicalBytes(),
                 0, 0};
  for (const CorpusRecord& record : ListCorpora()) {
    if (record.pin) disk.pinned_bytes += record.chain.size() * record.block_bytes;
  }
  disk.free_bytes = std::min(disk.capacity_bytes - std::min(disk.capacity_bytes, disk.used_bytes),
                             FreeDiskBytes(options_.data_dir));
  return {host, disk};
}

CorpusUsage DurableBlockStore::UsageOf(const CorpusRecord& record) const {
  CorpusUsage usage;
  usage.stored_bytes = record.chain.size() * record.block_bytes;
  usage.disk_bytes = usage.stored_bytes;
  for (const Digest& digest : record.chain) {
    if (host_.Contains(digest)) usage.host_bytes += record.block_bytes;
  }
  return usage;
}

std::vector<std::string> DurableBlockStore::Diagnose() const {
  std::vector<std::string> lines;
  for (const TierUsage& tier : Usage()) {
    const bool tight = tier.free_bytes < tier.capacity_bytes / 20;
    lines.push_back(std::string(tight ? "warn" : "ok") + ": " + tier.name + " tier uses " +
                    FormatBytes(tier.used_bytes) + " of " + FormatBytes(tier.capacity_bytes) +
                    ", " + FormatBytes(tier.free_bytes) + " free");
  }
  uint64_t damaged = 0;
  for (const CorpusRecord& record : ListCorpora()) {
    const auto entries = catalog_->Entries(record.chain);
    if (!entries.ok()) {
      lines.push_back("error: the catalogue cannot be read: " + entries.status().message());
      continue;
    }
    damaged += static_cast<uint64_t>(
        std::count_if(entries->begin(), entries->end(),
                      [](const ChainEntry& e) { return e.quarantined || e.references == 0; }));
  }
  lines.push_back(damaged == 0 ? "ok: no damaged block is known"
                               : "warn: " + std::to_string(damaged) +
                                     " blocks are quarantined or lost: corpusctl verify --repair");
  return lines;
}

Status DurableBlockStore::PutJob(uint64_t id, std::string_view record) {
  const std::lock_guard lock(mutex_);
  Catalog::Change change;
  change.PutJob(id, record);
  return CommitLocked(change, /*sync=*/true);
}

std::vector<std::pair<uint64_t, std::string>> DurableBlockStore::ListJobs() const {
  const std::lock_guard lock(mutex_);
  return catalog_->Jobs();
}

Status DurableBlockStore::RemoveJob(uint64_t id) {
  const std::lock_guard lock(mutex_);
  Catalog::Change change;
  change.RemoveJob(id);
  return CommitLocked(change, /*sync=*/true);
}

}  // namespace corpusd
