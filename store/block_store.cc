// The corpus side of DurableBlockStore: opening, records, names, usage.
#include "store/block_store.h"

#include <algorithm>
#include <filesystem>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "store/base/clock.h"
#include "store/base/fault_point.h"
#include "store/base/units.h"
#include "store/durable_block_store.h"
#include "store/pin_ledger.h"
#include "store/store_observer.h"

namespace corpusd {
namespace {

// Enough readers to reach a disk's bandwidth with pieces of about 1 MiB; more only fight for cores.
constexpr unsigned kTransferThreads = 4;

bool IsPrefix(const SharedVector<Digest>& part, const SharedVector<Digest>& whole) {
  return part.CommonPrefix(whole) == part.size();
}

bool PinnedNow(const CorpusRecord& record, TierKind tier) {
  return PinHolds(record, WallTimeMs()) && record.pin->tier == static_cast<uint8_t>(tier);
}

}  // namespace

Result<std::unique_ptr<BlockStore>> BlockStore::Open(const BlockStoreOptions& options) {
  std::error_code error;
  std::filesystem::create_directories(options.data_dir, error);
  if (error) {
    return IoError("cannot create the data folder " + options.data_dir + ": " + error.message());
  }
  RETURN_IF_ERROR(ArmFaultsFromEnvironment());
  ASSIGN_OR_RETURN(auto lock, FolderLock::Acquire(options.data_dir));
  ASSIGN_OR_RETURN(auto catalog, Catalog::Open(options.data_dir + "/catalog"));
  // What a crash left between payload and catalogue belongs to nobody.
  ASSIGN_OR_RETURN(auto payload,
                   PayloadStore::Open(options.data_dir, catalog->NamedExtents(), options.shelves));
  std::set<uint64_t> corpora;
  for (const auto& [name, record] : catalog->records()) corpora.insert(record.id);
  ASSIGN_OR_RETURN(auto sidecars, SidecarStore::Open(options.data_dir + "/sidecars", corpora));
  return std::make_unique<DurableBlockStore>(options, std::move(lock), std::move(catalog),
                                             std::move(payload), std::move(sidecars));
}

DurableBlockStore::DurableBlockStore(const BlockStoreOptions& options,
                                     std::unique_ptr<FolderLock> lock,
                                     std::unique_ptr<Catalog> catalog,
                                     std::unique_ptr<PayloadStore> payload,
                                     std::unique_ptr<SidecarStore> sidecars)
    : options_(options),
      lock_(std::move(lock)),
      catalog_(std::move(catalog)),
      payload_(std::move(payload)),
      sidecars_(std::move(sidecars)),
      host_(
          options.host_bytes,
          [this](std::function<void()> touch) {
            transfers_.Submit(TransferPriority::kBackground, {{0, std::move(touch)}});
          },
          options.device),
      device_(options.device == nullptr
                  ? nullptr
                  : std::make_unique<DeviceTier>(options.device, options.device_bytes)),
      gate_([this](uint64_t needed_bytes) { return ProbeDisk(needed_bytes); },
            options.on_write_state),
      disk_policy_(options.disk_bytes),
      loader_(*this, host_, transfers_),
      transfers_({kTransferThreads, options.inflight_bytes}) {
  host_.SetObserver(options.observer);
  if (device_ != nullptr) device_->table().SetObserver(options.observer, TierKind::kDevice);
  if (options.touch_host_memory) host_.TouchAll();
  SeedHeat();
  RefreshPins();
}

Result<const CorpusRecord*> DurableBlockStore::CurrentLocked(const CorpusRecord& record) const {
  const CorpusRecord* const current = catalog_->Find(record.name);
  if (current == nullptr || current->id != record.id) return NoCorpusError(record.name);
  if (current->generation != record.generation) {
    return Status(StatusCode::kAborted,
                  "corpus '" + record.name + "' changed meanwhile (generation " +
                      std::to_string(current->generation) + ", not " +
                      std::to_string(record.generation) + "): read it again and retry");
  }
  return current;
}

Status DurableBlockStore::CommitLocked(const Catalog::Change& change, bool sync) {
  auto committed = catalog_->Commit(change, sync);
  if (!committed.ok()) return gate_.Observe(committed.status(), 0);
  std::vector<uint64_t> emptied = *std::move(committed);
  emptied.insert(emptied.end(), orphans_.begin(), orphans_.end());
  orphans_.clear();
  std::erase_if(emptied, [&](uint64_t e) { return catalog_->live_bytes().contains(e); });
  // The change stands; what cannot be dropped now is tried again with the next one.
  if (!payload_->DropExtents(emptied).ok()) orphans_ = std::move(emptied);
  return OkStatus();
}

Status DurableBlockStore::ReleaseLocked(std::span<const Digest> digests, Catalog::Change* change,
                                        Departure* gone) {
  ASSIGN_OR_RETURN(const auto entries, catalog_->Entries(digests));
  std::unordered_map<Digest, ChainEntry, DigestHash> changed;
  for (size_t i = 0; i < digests.size(); ++i) {
    ChainEntry& entry = changed.try_emplace(digests[i], entries[i]).first->second;
    if (entry.references > 0) --entry.references;
  }
  for (const auto& [digest, entry] : changed) {
    if (entry.references > 0) {
      change->PutEntry(digest, entry);
      continue;
    }
    change->RemoveEntry(digest);
    if (gone != nullptr) {
      ++gone->blocks;
      gone->bytes += entry.payload_bytes;
    }
    host_.Erase(digest);
    if (device_ != nullptr) device_->table().Erase(digest);
  }
  return OkStatus();
}

void DurableBlockStore::Tell(const Departure& gone) const {
  if (options_.observer == nullptr || gone.blocks == 0) return;
  options_.observer->OnEvicted(TierKind::kDisk, gone.reason, gone.blocks, gone.bytes);
}

Result<CorpusRecord> DurableBlockStore::CommitRecordLocked(CorpusRecord record,
                                                           const CorpusRecord& old,
                                                           Catalog::Change* change) {
  const size_t same = record.chain.CommonPrefix(old.chain);
  ClipParts(record.chain.size(), &record.parts);
  CHECK(PartsFit(record.parts, record.chain.size())) << "parts of corpus '" << record.name << "'";
  RETURN_IF_ERROR(ReleaseLocked(std::span(old.chain).subspan(same), change));
  RETURN_IF_ERROR(ReleaseLocked(PartsGained(record, old), change));
  ++record.generation;
  change->PutRecord(record, &old);
  if (record.chain.size() > old.chain.size()) {
    change->PutHeat(record, UseLocked(record, /*correlated_ms=*/60'000));
    published_ms_[record.id] = WallTimeMs();
  }
  RETURN_IF_ERROR(CommitLocked(*change, /*sync=*/true));
  if (record.pin) {
    PinMoreLocked(record, std::span(record.chain).subspan(same));
    PinMoreLocked(record, PartsGained(old, record));
  }
  return record;
}

Result<CorpusRecord> DurableBlockStore::CreateCorpus(CorpusRecord record,
                                                     std::span<const TokenId> tokens) {
  RETURN_IF_ERROR(gate_.Admit("making corpus '" + record.name + "'"));
  CorpusRecord room;  // of its blocks none is there yet, and it has no id
  room.name = record.name;
  RETURN_IF_ERROR(MakeRoom(tokens.size_bytes(), room, record.name));
  RETURN_IF_ERROR(CheckCap(tokens.size_bytes()));
  const std::lock_guard lock(mutex_);
  if (catalog_->Find(record.name) != nullptr) {
    return AlreadyExistsError("corpus '" + record.name +
                              "' exists already: remove or rename it, or append to it");
  }
  record.id = catalog_->NextCorpusId();
  record.generation = 1;
  if (record.created_at_ms == 0) record.created_at_ms = WallTimeMs();
  record.chain.clear();
  ClipParts(0, &record.parts);
  record.durable_tokens = 0;
  record.tokens = tokens.size();
  RETURN_IF_ERROR(CheckPinLocked(record, nullptr));
  Catalog::Change change;
  change.PutTokens(record.id, tokens, 0);
  change.PutRecord(record, nullptr);
  change.PutRoot(record);
  RETURN_IF_ERROR(CommitLocked(change, /*sync=*/true));
  return record;
}

Result<CorpusRecord> DurableBlockStore::GetCorpus(std::string_view name) const {
  const std::lock_guard lock(mutex_);
  const CorpusRecord* const record = catalog_->Find(name);
  if (record == nullptr) return NoCorpusError(name);
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
  if (record == nullptr) return NoCorpusError(name);
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
  bool shrunk = false;
  bool pins = false;
  {
    const std::lock_guard lock(mutex_);
    ASSIGN_OR_RETURN(const CorpusRecord* const current, CurrentLocked(record));
    const CorpusRecord old = *current;
    CHECK(IsPrefix(record.chain, old.chain) && PartsGained(old, record).empty())
        << "UpdateCorpus adds no blocks";
    RETURN_IF_ERROR(CheckPinLocked(record, &old));
    Catalog::Change change;
    ASSIGN_OR_RETURN(updated, CommitRecordLocked(record, old, &change));
    shrunk = updated.chain.size() < old.chain.size() || updated.parts != old.parts;
    pins = updated.pin != old.pin || (shrunk && updated.pin);
  }
  if (pins) RefreshPins();
  if (shrunk) ReclaimSpace();
  return updated;
}

Status DurableBlockStore::CheckPinLocked(const CorpusRecord& record,
                                         const CorpusRecord* old) const {
  const int64_t now_ms = WallTimeMs();
  // What was promised already stands, whatever the limits have become since.
  if (old != nullptr && PinHolds(*old, now_ms) && record.pin &&
      record.pin->tier == old->pin->tier && record.pin->owner == old->pin->owner &&
      PinCharge(record) <= PinCharge(*old)) {
    return OkStatus();
  }
  if (!PinHolds(record, now_ms)) return OkStatus();
  PinLedger ledger(now_ms);
  for (const auto& [name, other] : catalog_->records()) {
    if (old == nullptr || other.id != old->id) ledger.Add(other);
  }
  uint64_t disk_bytes = options_.disk_bytes;
  for (const auto& [shelf, bytes] : shelf_bytes_) disk_bytes += bytes;
  return ledger.CheckFits(
      record, {options_.pins_owner_bytes, options_.pins_total_bytes, host_.capacity_bytes(),
               disk_bytes, device_ == nullptr ? 0 : options_.device_bytes});
}

Result<CorpusRecord> DurableBlockStore::ReplaceTokens(const CorpusRecord& record,
                                                      std::span<const TokenId> tokens) {
  RETURN_IF_ERROR(gate_.Admit("appending to corpus '" + record.name + "'"));
  RETURN_IF_ERROR(MakeRoom(tokens.size_bytes(), record, record.name));
  RETURN_IF_ERROR(CheckCap(tokens.size_bytes()));
  const std::lock_guard lock(mutex_);
  ASSIGN_OR_RETURN(const CorpusRecord* const current, CurrentLocked(record));
  const CorpusRecord old = *current;
  CHECK(IsPrefix(record.chain, old.chain) && PartsGained(old, record).empty())
      << "ReplaceTokens adds no blocks";
  CorpusRecord changed = record;
  changed.tokens = tokens.size();
  RETURN_IF_ERROR(CheckPinLocked(changed, &old));
  Catalog::Change change;
  change.PutTokens(record.id, tokens, old.tokens);
  return CommitRecordLocked(std::move(changed), old, &change);
}

Status DurableBlockStore::NoteUse(std::string_view name) {
  const std::lock_guard lock(mutex_);
  const CorpusRecord* const current = catalog_->Find(name);
  if (current == nullptr) return NoCorpusError(name);
  CorpusRecord record = *current;
  record.last_used_at_ms = WallTimeMs();
  Catalog::Change change;
  change.PutUse(record, UseLocked(record, /*correlated_ms=*/0));
  return CommitLocked(change, /*sync=*/false);
}

void DurableBlockStore::RefreshPins() {
  const std::lock_guard lock(mutex_);
  host_.SetPins(PinsOfLocked(TierKind::kHost));
  if (device_ != nullptr) device_->table().SetPins(PinsOfLocked(TierKind::kDevice));
}

void DurableBlockStore::PinMoreLocked(const CorpusRecord& record, std::span<const Digest> blocks) {
  if (PinnedNow(record, TierKind::kHost)) host_.AddPins(blocks, record.pin->expires_at_ms);
  if (device_ != nullptr && PinnedNow(record, TierKind::kDevice)) {
    device_->table().AddPins(blocks, record.pin->expires_at_ms);
  }
}

TierTable::Pins DurableBlockStore::PinsOfLocked(TierKind tier) const {
  TierTable::Pins pins;
  for (const auto& [name, record] : catalog_->records()) {
    if (!PinnedNow(record, tier)) continue;
    const int64_t until = record.pin->expires_at_ms;
    for (const Digest& digest : AllDigests(record)) {
      const auto [it, inserted] = pins.try_emplace(digest, until);
      if (!inserted) it->second = it->second == 0 || until == 0 ? 0 : std::max(it->second, until);
    }
  }
  return pins;
}

std::vector<TierUsage> DurableBlockStore::Usage() const {
  TierUsage host{"host", host_.capacity_bytes(), host_.used_bytes(), host_.PinnedBytes(), 0};
  host.free_bytes = host.capacity_bytes - std::min(host.capacity_bytes, host.used_bytes);
  TierUsage disk{"disk", options_.disk_bytes, DiskUsedBytes(), 0, 0};
  for (const CorpusRecord& record : ListCorpora()) {
    if (PinnedNow(record, TierKind::kHost) || PinnedNow(record, TierKind::kDisk)) {
      disk.pinned_bytes += record.chain.size() * record.block_bytes + HeldPartBytes(record);
    }
  }
  disk.free_bytes = std::min(disk.capacity_bytes - std::min(disk.capacity_bytes, disk.used_bytes),
                             FreeDiskBytes());
  std::vector<TierUsage> tiers = {host, disk};
  if (device_ != nullptr) {
    const TierTable& table = device_->table();
    const uint64_t used = table.used_bytes();
    const uint64_t free_bytes = table.capacity_bytes() - std::min(table.capacity_bytes(), used);
    tiers.push_back({"device", table.capacity_bytes(), used, table.PinnedBytes(), free_bytes});
  }
  return tiers;
}

CorpusUsage DurableBlockStore::UsageOf(const CorpusRecord& record) const {
  CorpusUsage usage;
  usage.part_bytes = HeldPartBytes(record);
  usage.stored_bytes = record.chain.size() * record.block_bytes + usage.part_bytes;
  usage.disk_bytes = usage.stored_bytes + sidecars_->BytesOf(record.id);
  for (const Digest& digest : record.chain) {
    if (host_.Contains(digest)) usage.host_bytes += record.block_bytes;
    if (device_ != nullptr && device_->table().Contains(digest)) {
      usage.device_bytes += record.block_bytes;
    }
  }
  for (const HeldPart& held : HeldParts(record)) {
    if (host_.Contains(held.digest)) usage.host_bytes += record.parts[held.part].block_bytes;
  }
  return usage;
}

std::vector<Digest> DurableBlockStore::HeldWithoutLease() const {
  std::vector<Digest> held = host_.HeldDigests();
  const std::vector<Digest> leased = leases_.HeldDigests();
  const std::unordered_set<Digest, DigestHash> known(leased.begin(), leased.end());
  std::erase_if(held, [&](const Digest& digest) { return known.contains(digest); });
  return held;
}

std::vector<std::string> DurableBlockStore::Diagnose() const {
  std::vector<std::string> lines;
  for (const TierUsage& tier : Usage()) {
    const bool tight = tier.free_bytes < tier.capacity_bytes / 20;
    lines.push_back(std::string(tight ? "warn" : "ok") + ": " + tier.name + " tier uses " +
                    FormatBytes(tier.used_bytes) + " of " + FormatBytes(tier.capacity_bytes) +
                    ", " + FormatBytes(tier.free_bytes) + " free");
  }
  const HostArena::Usage memory = host_.ArenaUsage();
  lines.push_back("ok: host memory: " + FormatBytes(memory.physical_bytes) + " touched, " +
                  FormatBytes(memory.huge_bytes) + " of it in huge pages" +
                  (memory.huge_bytes > 0 || memory.huge_pages_allowed
                       ? ""
                       : ", which the kernel does not allow"));
  uint64_t damaged = 0;
  for (const CorpusRecord& record : ListCorpora()) {
    const auto entries = catalog_->Entries(AllDigests(record));
    if (!entries.ok()) {
      lines.push_back("error: the catalogue cannot be read: " + entries.status().message());
      continue;
    }
    damaged += static_cast<uint64_t>(
        std::count_if(entries->begin(), entries->end(),
                      [](const ChainEntry& e) { return e.quarantined || e.references == 0; }));
  }
  const std::vector<std::string> contradictions = [&] {
    const std::lock_guard lock(mutex_);
    auto found = catalog_->Contradictions();
    const auto extents = payload_->Extents();
    for (const auto& [extent, bytes] : catalog_->live_bytes()) {
      if (ShelfOf(extent) == 0 && !extents.contains(extent)) {
        found.push_back("extent " + std::to_string(extent) + " is lost");
      }
    }
    return found;
  }();
  for (const std::string& sentence : leases_.Contradictions()) {
    lines.push_back("error: " + sentence);
  }
  for (const std::string& sentence : contradictions) lines.push_back("error: " + sentence);
  for (std::string& line : DiagnoseShelves()) lines.push_back(std::move(line));
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
