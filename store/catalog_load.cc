// The catalogue from disk to memory: opening it, and bringing folders of older schemas up to date.
#include <algorithm>
#include <cstring>

#include "store/catalog.h"
#include "store/catalog_families.h"
#include "store/key_codec.h"

namespace corpusd {
namespace {

// Operations of one batch while old rows are replaced by new ones.
constexpr size_t kUpgradeBatch = 65536;

Status UnknownSchema(const std::string& schema) {
  return FailedPreconditionError("the data folder has store schema " + schema +
                                 ", this version reads schemas 1 to " + std::string(kPartsSchema) +
                                 ": use the version that wrote it, or another --data-dir");
}

Status BadChain(const std::string& corpus) {
  return CorruptionError("the chain of corpus '" + corpus + "' cannot be read");
}

}  // namespace

Result<std::unique_ptr<Catalog>> Catalog::Open(const std::string& folder) {
  ASSIGN_OR_RETURN(auto database,
                   RocksDatabase::Open(folder, RocksDatabase::Use::kCatalog, FamilyNames()));
  std::unique_ptr<Catalog> catalog(new Catalog(std::move(database)));
  RETURN_IF_ERROR(catalog->CheckSchema());
  RETURN_IF_ERROR(catalog->Reload());
  if (catalog->older_) RETURN_IF_ERROR(catalog->Upgrade());
  RETURN_IF_ERROR(catalog->DropOldManifests());
  return catalog;
}

Status Catalog::CheckSchema() {
  const auto schema = database_->Get(kMeta, "schema");
  if (schema.ok()) {
    older_ = std::find(std::begin(kOlderSchemas), std::end(kOlderSchemas), *schema) !=
             std::end(kOlderSchemas);
    if (older_ || *schema == kSchema || *schema == kPartsSchema) return OkStatus();
    // What schema 3 wrote reads the same now; its version must not read what is written from now
    // on.
    if (*schema != kLastSchema) return UnknownSchema(*schema);
  } else if (schema.status().code() != StatusCode::kNotFound) {
    return schema.status();
  }
  RocksBatch batch;
  batch.Put(kMeta, "schema", kSchema);
  return database_->Write(batch, /*sync=*/true);
}

// A write that failed may yet be in the log, and come back if the database is opened again to
// recover from the error: what is in memory then follows what is on disk.
Status Catalog::Reload() {
  records_.clear();
  live_bytes_.clear();
  notes_.clear();
  extent_bytes_.clear();
  quarantined_.clear();
  heats_.clear();
  ForgetSums();
  RETURN_IF_ERROR(LoadRecords());
  if (older_) RETURN_IF_ERROR(CountEntries());
  RETURN_IF_ERROR(LoadExtents());
  RETURN_IF_ERROR(LoadQuarantined());
  RETURN_IF_ERROR(LoadNotes());
  stale_ = false;
  return OkStatus();
}

Status Catalog::LoadRecords() {
  Status bad;
  RETURN_IF_ERROR(database_->Scan(kCorpora, "", [&](std::string_view, std::string_view value) {
    auto record = DecodeRecord(value);
    if (!record.ok()) {
      bad = record.status();
      return false;
    }
    next_corpus_id_ = std::max(next_corpus_id_, record->id + 1);
    std::string name = record->name;
    records_.emplace(std::move(name), std::move(*record));
    return true;
  }));
  RETURN_IF_ERROR(bad);
  RETURN_IF_ERROR(LoadChains());
  for (auto& [name, record] : records_) RETURN_IF_ERROR(LoadDetails(&record));
  if (const auto id = database_->Get(kMeta, "next_corpus_id"); id.ok()) {
    uint64_t stored = 0;
    if (ReadBigEndian(*id, 0, &stored)) next_corpus_id_ = std::max(next_corpus_id_, stored);
  }
  return OkStatus();
}

// One pass over all rows; schemas 1 and 2 had a row for each block.
Status Catalog::LoadChains() {
  struct Loading {
    CorpusRecord* record = nullptr;
    std::vector<Digest> chain;
  };
  std::unordered_map<uint64_t, Loading> by_id;
  for (auto& [name, record] : records_) by_id[record.id].record = &record;
  Status bad;
  const auto add = [&](std::string_view key, std::string_view value) {
    uint64_t id = 0;
    ReadBigEndian(key, 0, &id);
    const auto loading = by_id.find(id);
    if (loading == by_id.end()) return true;  // of a corpus whose record went
    std::vector<Digest>& chain = loading->second.chain;
    const size_t first = chain.size();
    if (value.empty() || value.size() % sizeof(Digest) != 0) {
      bad = BadChain(loading->second.record->name);
      return false;
    }
    chain.resize(first + value.size() / sizeof(Digest));
    std::memcpy(&chain[first], value.data(), value.size());
    return true;
  };
  RETURN_IF_ERROR(database_->Scan(older_ ? kManifests : kChainRows, "", add));
  for (auto& [id, loading] : by_id) loading.record->chain = std::move(loading.chain);
  return bad;
}

Status Catalog::LoadDetails(CorpusRecord* record) {
  if (!PartsFit(record->parts, record->chain.size())) return BadChain(record->name);
  if (const auto sources = database_->Get(kSources, KeyOf(record->id)); sources.ok()) {
    ASSIGN_OR_RETURN(record->sources, DecodeSources(*sources));
  }
  const auto stored = database_->Get(kUses, KeyOf(record->id));
  if (!stored.ok()) return OkStatus();
  // A hint: one that cannot be read costs no more than itself.
  const auto use = DecodeUse(*stored);
  if (!use.ok()) return OkStatus();
  record->last_used_at_ms = std::max(record->last_used_at_ms, use->last_used_at_ms);
  if (use->heat) heats_[record->id] = *use->heat;
  return OkStatus();
}

Status Catalog::LoadExtents() {
  Status bad;
  RETURN_IF_ERROR(database_->Scan(kExtents, "", [&](std::string_view key, std::string_view value) {
    uint64_t extent = 0;
    uint64_t bytes = 0;
    ReadBigEndian(key, 0, &extent);
    if (older_) {
      if (ReadBigEndian(value, 0, &bytes)) extent_bytes_[extent] = bytes;
      return true;
    }
    const auto count = DecodeExtent(value);
    if (!count.ok()) {
      bad = count.status();
      return false;
    }
    if (count->bytes > 0) extent_bytes_.emplace_hint(extent_bytes_.end(), extent, count->bytes);
    live_bytes_.emplace_hint(live_bytes_.end(), extent, count->live_bytes);
    return true;
  }));
  return bad;
}

Status Catalog::LoadQuarantined() {
  return database_->Scan(kMeta, kQuarantinedPrefix, [&](std::string_view key, std::string_view) {
    Digest digest;
    if (AsDigest(key.substr(kQuarantinedPrefix.size()), &digest)) quarantined_.insert(digest);
    return true;
  });
}

Status Catalog::LoadNotes() {
  return database_->Scan(kEvictions, "", [&](std::string_view, std::string_view value) {
    // They are history: one that cannot be read costs an answer to "why", and nothing else.
    const auto note = DecodeEvictionNote(value);
    if (note.ok()) notes_[{note->corpus_id, note->first_block}] = *note;
    return true;
  });
}

Status Catalog::CountEntries() {
  Status bad;
  std::unordered_map<uint64_t, uint64_t> live_bytes;  // entries come in the order of digests
  RETURN_IF_ERROR(database_->Scan(kChains, "", [&](std::string_view key, std::string_view value) {
    const auto entry = DecodeChainEntry(value);
    if (!entry.ok()) {
      bad = entry.status();
      return false;
    }
    live_bytes[entry->location.extent] += entry->payload_bytes;
    Digest digest;
    if (entry->quarantined && AsDigest(key, &digest)) quarantined_.insert(digest);
    return true;
  }));
  live_bytes_.insert(live_bytes.begin(), live_bytes.end());
  return bad;
}

// First the new chains, then all the rest in one batch with the new schema: until then the folder
// is what it was, and a crash begins this again.
Status Catalog::Upgrade() {
  RocksBatch stale;  // of an upgrade that a crash cut off
  RETURN_IF_ERROR(database_->Scan(kChainRows, "", [&](std::string_view key, std::string_view) {
    stale.Delete(kChainRows, key);
    return true;
  }));
  RETURN_IF_ERROR(database_->Write(stale, /*sync=*/false));
  for (const auto& [name, record] : records_) {
    Change change;
    change.PutChain(record.id, record.chain, 0, 0);
    RETURN_IF_ERROR(database_->Write(change.batch_, /*sync=*/false));
  }
  RocksBatch counts;
  for (const auto& [extent, live_bytes] : live_bytes_) {
    const auto known = extent_bytes_.find(extent);
    const uint64_t bytes = known == extent_bytes_.end() ? 0 : known->second;
    counts.Put(kExtents, KeyOf(extent), EncodeExtent({bytes, live_bytes}));
  }
  for (const Digest& digest : quarantined_) {
    counts.Put(kMeta, std::string(kQuarantinedPrefix) + std::string(AsText(digest)), "");
  }
  for (const auto& [extent, bytes] : extent_bytes_) {
    if (!live_bytes_.contains(extent)) counts.Delete(kExtents, KeyOf(extent));
  }
  std::erase_if(extent_bytes_, [&](const auto& item) { return !live_bytes_.contains(item.first); });
  counts.Put(kMeta, "schema", kSchema);
  RETURN_IF_ERROR(database_->Write(counts, /*sync=*/true));
  older_ = false;
  return OkStatus();
}

Status Catalog::DropOldManifests() {
  bool more = true;
  while (more) {
    RocksBatch batch;
    size_t rows = 0;
    RETURN_IF_ERROR(database_->Scan(kManifests, "", [&](std::string_view key, std::string_view) {
      batch.Delete(kManifests, key);
      return ++rows < kUpgradeBatch;
    }));
    more = rows == kUpgradeBatch;
    if (rows > 0) RETURN_IF_ERROR(database_->Write(batch, /*sync=*/false));
  }
  return OkStatus();
}

}  // namespace corpusd
