#include "store/catalog.h"

#include <algorithm>

#include "store/base/fault_point.h"
#include "store/key_codec.h"
#include "store/root_record.h"

namespace corpusd {
namespace {

enum Family : size_t {
  kMeta,
  kCorpora,
  kSources,
  kUses,
  kChains,
  kManifests,
  kTokens,
  kBlockTokens,
  kJobs,
  kEvictions,
  kExtents
};
const std::vector<std::string> kFamilies = {"meta",   "corpora",   "sources", "uses",
                                            "chains", "manifests", "tokens",  "block_tokens",
                                            "jobs",   "evictions", "extents"};
// Schema 1 had its blocks in ingested table files, which are still read.
constexpr std::string_view kSchema = "2";
constexpr std::string_view kOlderSchema = "1";
constexpr std::string_view kRootPrefix = "root/";

std::string_view AsText(const Digest& digest) {
  return {reinterpret_cast<const char*>(digest.bytes.data()), digest.bytes.size()};
}

bool AsDigest(std::string_view text, Digest* digest) {
  if (text.size() != digest->bytes.size()) return false;
  std::copy(text.begin(), text.end(), digest->bytes.begin());
  return true;
}

std::vector<std::string> KeysOf(std::span<const Digest> digests) {
  std::vector<std::string> keys;
  keys.reserve(digests.size());
  for (const Digest& digest : digests) keys.emplace_back(AsText(digest));
  return keys;
}

Status UnknownSchema(const std::string& schema) {
  return FailedPreconditionError("the data folder has store schema " + schema +
                                 ", this version reads schemas " + std::string(kOlderSchema) +
                                 " and " + std::string(kSchema) +
                                 ": use the version that wrote it, or another --data-dir");
}

size_t ChunksOf(size_t tokens) { return (tokens + kTokensPerChunk - 1) / kTokensPerChunk; }

}  // namespace

Result<std::unique_ptr<Catalog>> Catalog::Open(const std::string& folder) {
  ASSIGN_OR_RETURN(auto database,
                   RocksDatabase::Open(folder, RocksDatabase::Use::kCatalog, kFamilies));
  std::unique_ptr<Catalog> catalog(new Catalog(std::move(database)));
  RETURN_IF_ERROR(catalog->CheckSchema());
  RETURN_IF_ERROR(catalog->Reload());
  return catalog;
}

Status Catalog::CheckSchema() {
  const auto schema = database_->Get(kMeta, "schema");
  if (schema.ok()) {
    if (*schema == kSchema) return OkStatus();
    if (*schema != kOlderSchema) return UnknownSchema(*schema);
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
  ForgetCompared();
  RETURN_IF_ERROR(LoadRecords());
  RETURN_IF_ERROR(LoadEntries());
  RETURN_IF_ERROR(LoadExtents());
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
  for (auto& [name, record] : records_) {
    const auto add_digest = [&bad, &record = record](std::string_view, std::string_view value) {
      Digest digest;
      if (!AsDigest(value, &digest)) {
        bad = CorruptionError("the chain of corpus '" + record.name + "' cannot be read");
        return false;
      }
      record.chain.push_back(digest);
      return true;
    };
    RETURN_IF_ERROR(database_->Scan(kManifests, KeyOf(record.id), add_digest));
    RETURN_IF_ERROR(bad);
    if (const auto sources = database_->Get(kSources, KeyOf(record.id)); sources.ok()) {
      ASSIGN_OR_RETURN(record.sources, DecodeSources(*sources));
    }
    uint64_t last_used = 0;
    const auto use = database_->Get(kUses, KeyOf(record.id));
    if (use.ok() && ReadBigEndian(*use, 0, &last_used)) {
      record.last_used_at_ms = std::max(record.last_used_at_ms, static_cast<int64_t>(last_used));
    }
  }
  if (const auto id = database_->Get(kMeta, "next_corpus_id"); id.ok()) {
    uint64_t stored = 0;
    if (ReadBigEndian(*id, 0, &stored)) next_corpus_id_ = std::max(next_corpus_id_, stored);
  }
  return OkStatus();
}

Status Catalog::LoadEntries() {
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

Status Catalog::LoadNotes() {
  return database_->Scan(kEvictions, "", [&](std::string_view, std::string_view value) {
    // They are history: one that cannot be read costs an answer to "why", and nothing else.
    const auto note = DecodeEvictionNote(value);
    if (note.ok()) notes_[{note->corpus_id, note->first_block}] = *note;
    return true;
  });
}

size_t Catalog::TokensFamily() { return kTokens; }

Status Catalog::LoadExtents() {
  return database_->Scan(kExtents, "", [&](std::string_view key, std::string_view value) {
    uint64_t extent = 0;
    uint64_t bytes = 0;
    if (ReadBigEndian(key, 0, &extent) && ReadBigEndian(value, 0, &bytes)) {
      extent_bytes_[extent] = bytes;
    }
    return true;
  });
}

std::map<uint64_t, uint64_t> Catalog::NamedExtents() const {
  std::map<uint64_t, uint64_t> extents;
  for (const auto& [extent, bytes] : live_bytes_) {
    const auto known = extent_bytes_.find(extent);
    extents.emplace_hint(extents.end(), extent, known == extent_bytes_.end() ? 0 : known->second);
  }
  return extents;
}

const CorpusRecord* Catalog::Find(std::string_view name) const {
  const auto it = records_.find(name);
  return it == records_.end() ? nullptr : &it->second;
}

Result<std::vector<TokenId>> Catalog::Tokens(uint64_t corpus_id) const {
  std::vector<TokenId> tokens;
  Status bad;
  RETURN_IF_ERROR(
      database_->Scan(kTokens, KeyOf(corpus_id), [&](std::string_view, std::string_view value) {
        bad = DecodeTokens(value, &tokens);
        return bad.ok();
      }));
  RETURN_IF_ERROR(bad);
  return tokens;
}

Result<ChainEntry> Catalog::Entry(const Digest& digest) const {
  ASSIGN_OR_RETURN(const std::string bytes, database_->Get(kChains, AsText(digest)));
  return DecodeChainEntry(bytes);
}

Result<std::vector<ChainEntry>> Catalog::Entries(std::span<const Digest> digests) const {
  ASSIGN_OR_RETURN(const auto values, database_->MultiGet(kChains, KeysOf(digests)));
  std::vector<ChainEntry> entries(digests.size());
  for (size_t i = 0; i < values.size(); ++i) {
    if (!values[i]) continue;
    ASSIGN_OR_RETURN(entries[i], DecodeChainEntry(*values[i]));
  }
  return entries;
}

Result<std::vector<std::vector<TokenId>>> Catalog::BlockTokens(
    std::span<const Digest> digests) const {
  ASSIGN_OR_RETURN(const auto values, database_->MultiGet(kBlockTokens, KeysOf(digests)));
  std::vector<std::vector<TokenId>> tokens(digests.size());
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i]) RETURN_IF_ERROR(DecodeTokens(*values[i], &tokens[i]));
  }
  return tokens;
}

Result<std::map<uint64_t, Catalog::DigestEntries>> Catalog::EntriesIn(
    const std::set<uint64_t>& extents) const {
  std::map<uint64_t, DigestEntries> found;
  Status bad;
  const auto visit = [&](std::string_view key, std::string_view value) {
    const auto entry = DecodeChainEntry(value);
    Digest digest;
    if (!entry.ok() || !AsDigest(key, &digest)) {
      bad = entry.ok() ? CorruptionError("a digest of the catalogue is too short") : entry.status();
      return false;
    }
    if (extents.contains(entry->location.extent)) {
      found[entry->location.extent].emplace_back(digest, *entry);
    }
    return true;
  };
  RETURN_IF_ERROR(database_->Scan(kChains, "", visit));
  RETURN_IF_ERROR(bad);
  return found;
}

std::vector<std::string> Catalog::Contradictions() const {
  std::vector<std::string> found;
  std::unordered_map<Digest, uint32_t, DigestHash> references;
  for (const auto& [name, record] : records_) {
    const auto entries = Entries(record.chain);
    if (!entries.ok()) return {entries.status().ToString()};
    uint64_t tokens = 0;
    for (size_t i = 0; i < record.chain.size(); ++i) {
      ++references[record.chain[i]];
      tokens += (*entries)[i].tokens;
      if ((*entries)[i].references > 0) continue;
      found.push_back("corpus '" + name + "' names block " + std::to_string(i) +
                      ", which is not stored");
    }
    if (tokens != record.durable_tokens) {
      found.push_back("corpus '" + name + "' says " + std::to_string(record.durable_tokens) +
                      " durable tokens, its blocks hold " + std::to_string(tokens));
    }
  }
  const auto visit = [&](std::string_view key, std::string_view value) {
    const auto entry = DecodeChainEntry(value);
    Digest digest;
    if (entry.ok() && AsDigest(key, &digest) && entry->references != references[digest]) {
      found.push_back("block " + digest.Hex().substr(0, 12) + " counts " +
                      std::to_string(entry->references) + " references, corpora hold " +
                      std::to_string(references[digest]));
    }
    return true;
  };
  const Status scanned = database_->Scan(kChains, "", visit);
  if (!scanned.ok()) found.push_back(scanned.ToString());
  return found;
}

void Catalog::Change::PutRecord(const CorpusRecord& record, const CorpusRecord* old) {
  static const CorpusRecord kNone;
  const CorpusRecord& before = old != nullptr ? *old : kNone;
  batch_.Put(kCorpora, KeyOf(record.id), EncodeRecord(record));
  if (record.sources != before.sources) {
    batch_.Put(kSources, KeyOf(record.id), EncodeSources(record.sources));
  }
  const auto [same, same_before] = std::mismatch(record.chain.begin(), record.chain.end(),
                                                 before.chain.begin(), before.chain.end());
  for (auto it = same; it != record.chain.end(); ++it) {
    batch_.Put(kManifests, KeyOf(record.id, static_cast<uint32_t>(it - record.chain.begin())),
               AsText(*it));
  }
  for (size_t i = record.chain.size(); i < before.chain.size(); ++i) {
    batch_.Delete(kManifests, KeyOf(record.id, static_cast<uint32_t>(i)));
  }
  put_.push_back(record);
}

void Catalog::Change::PutUse(const CorpusRecord& record) {
  std::string value;
  AppendBigEndian(&value, static_cast<uint64_t>(record.last_used_at_ms));
  batch_.Put(kUses, KeyOf(record.id), value);
  put_.push_back(record);
}

void Catalog::Change::RemoveRecord(const CorpusRecord& record) {
  batch_.Delete(kCorpora, KeyOf(record.id));
  batch_.Delete(kSources, KeyOf(record.id));
  batch_.Delete(kUses, KeyOf(record.id));
  for (size_t i = 0; i < record.chain.size(); ++i) {
    batch_.Delete(kManifests, KeyOf(record.id, static_cast<uint32_t>(i)));
  }
  for (size_t c = 0; c < ChunksOf(record.tokens); ++c) {
    batch_.Delete(kTokens, KeyOf(record.id, static_cast<uint32_t>(c)));
  }
  removed_.push_back(record.name);
}

void Catalog::Change::PutTokens(uint64_t corpus_id, std::span<const TokenId> tokens,
                                size_t old_tokens) {
  changes_tokens_ = true;
  const size_t chunks = ChunksOf(tokens.size());
  for (size_t c = 0; c < chunks; ++c) {
    const size_t first = c * kTokensPerChunk;
    batch_.Put(
        kTokens, KeyOf(corpus_id, static_cast<uint32_t>(c)),
        EncodeTokens(tokens.subspan(first, std::min(kTokensPerChunk, tokens.size() - first))));
  }
  for (size_t c = chunks; c < ChunksOf(old_tokens); ++c) {
    batch_.Delete(kTokens, KeyOf(corpus_id, static_cast<uint32_t>(c)));
  }
}

void Catalog::Change::PutEntry(const Digest& digest, const ChainEntry& entry) {
  batch_.Put(kChains, AsText(digest), EncodeChainEntry(entry));
  entries_[digest] = entry;
}

void Catalog::Change::PutExtent(uint64_t extent, uint64_t bytes) { extents_[extent] = bytes; }

void Catalog::Change::PutBlockTokens(const Digest& digest, std::span<const TokenId> tokens) {
  batch_.Put(kBlockTokens, AsText(digest), EncodeTokens(tokens));
}

void Catalog::Change::RemoveEntry(const Digest& digest) {
  batch_.Delete(kChains, AsText(digest));
  batch_.Delete(kBlockTokens, AsText(digest));
  entries_[digest] = {};
}

void Catalog::Change::PutRoot(const CorpusRecord& record) {
  RootRecord root{record.root, record.identity, record.name, record.created_at_ms};
  batch_.Put(kMeta, std::string(kRootPrefix) + std::string(AsText(record.root)), EncodeRoot(root));
}

std::vector<RootRecord> Catalog::Roots() const {
  std::vector<RootRecord> roots;
  // One that cannot be read is left out: it only explains.
  (void)database_->Scan(kMeta, kRootPrefix, [&](std::string_view /*key*/, std::string_view value) {
    auto root = DecodeRoot(value);
    if (root.ok()) roots.push_back(*std::move(root));
    return true;
  });
  return roots;
}

void Catalog::Change::PutJob(uint64_t id, std::string_view record) {
  batch_.Put(kJobs, KeyOf(id), record);
}

void Catalog::Change::RemoveJob(uint64_t id) { batch_.Delete(kJobs, KeyOf(id)); }

void Catalog::Change::PutNote(const EvictionNote& note) {
  const NoteKey key = {note.corpus_id, note.first_block};
  batch_.Put(kEvictions, KeyOf(key.first, static_cast<uint32_t>(key.second)),
             EncodeEvictionNote(note));
  dropped_notes_.erase(key);
  notes_[key] = note;
}

void Catalog::Change::DropNote(const NoteKey& key) {
  batch_.Delete(kEvictions, KeyOf(key.first, static_cast<uint32_t>(key.second)));
  dropped_notes_.insert(key);
  notes_.erase(key);
}

std::map<uint64_t, uint64_t> Catalog::LiveBytesAfter(
    const Change& change, std::span<const ChainEntry> old_entries) const {
  std::map<uint64_t, uint64_t> after;
  const auto live = [&](const ChainEntry& entry) -> uint64_t& {
    const auto [it, inserted] = after.try_emplace(entry.location.extent, 0);
    const auto now = inserted ? live_bytes_.find(it->first) : live_bytes_.end();
    if (now != live_bytes_.end()) it->second = now->second;
    return it->second;
  };
  // First all that come, then all that go: an extent between two entries is not empty.
  for (const auto& [digest, entry] : change.entries_) {
    if (entry.references > 0) live(entry) += entry.payload_bytes;
  }
  for (const ChainEntry& old : old_entries) {
    if (old.references == 0) continue;
    CHECK(live(old) >= old.payload_bytes) << "extent " << old.location.extent;
    live(old) -= old.payload_bytes;
  }
  return after;
}

Result<std::vector<uint64_t>> Catalog::Commit(const Change& change, bool sync) {
  RETURN_IF_ERROR(FaultPoint("catalog.write"));
  if (stale_) RETURN_IF_ERROR(Reload());
  std::vector<Digest> digests;
  for (const auto& [digest, entry] : change.entries_) digests.push_back(digest);
  ASSIGN_OR_RETURN(const auto old_entries, Entries(digests));
  const auto live_after = LiveBytesAfter(change, old_entries);
  RocksBatch extents;
  for (const auto& [extent, bytes] : live_after) {
    if (const auto put = change.extents_.find(extent); bytes > 0 && put != change.extents_.end()) {
      std::string value;
      AppendBigEndian(&value, put->second);
      extents.Put(kExtents, KeyOf(extent), value);
    } else if (bytes == 0) {
      extents.Delete(kExtents, KeyOf(extent));
    }
  }
  if (const Status written = database_->Write(change.batch_, sync, &extents); !written.ok()) {
    stale_ = !Reload().ok();
    return written;
  }
  (void)FaultPoint("catalog.written");  // for crashes: an error here would be a lie
  // Memory follows what is durable.
  for (const CorpusRecord& record : change.put_) {
    std::erase_if(records_, [&](const auto& item) { return item.second.id == record.id; });
    records_.insert_or_assign(record.name, record);
  }
  for (const std::string& name : change.removed_) records_.erase(name);
  if (change.changes_tokens_ || !change.removed_.empty()) ForgetCompared();
  for (const auto& [digest, entry] : change.entries_) {
    if (entry.references > 0 && entry.quarantined) {
      quarantined_.insert(digest);
    } else {
      quarantined_.erase(digest);
    }
  }
  ApplyNotes(change);
  std::vector<uint64_t> emptied;
  for (const auto& [extent, bytes] : live_after) {
    if (bytes > 0) {
      live_bytes_[extent] = bytes;
      const auto put = change.extents_.find(extent);
      if (put != change.extents_.end()) extent_bytes_[extent] = put->second;
      continue;
    }
    extent_bytes_.erase(extent);
    if (live_bytes_.erase(extent) > 0) emptied.push_back(extent);
  }
  return emptied;
}

uint64_t Catalog::NextCorpusId() {
  const uint64_t id = next_corpus_id_++;
  RocksBatch batch;
  std::string next;
  AppendBigEndian(&next, next_corpus_id_);
  batch.Put(kMeta, "next_corpus_id", next);
  // A lost write only repeats a number that no record got.
  (void)database_->Write(batch, /*sync=*/false);
  return id;
}

std::vector<std::pair<uint64_t, std::string>> Catalog::Jobs() const {
  std::vector<std::pair<uint64_t, std::string>> jobs;
  // A job record that cannot be read is left out: the corpus it built is queued again by its own
  // state.
  (void)database_->Scan(kJobs, "", [&](std::string_view key, std::string_view value) {
    uint64_t id = 0;
    if (ReadBigEndian(key, 0, &id)) jobs.emplace_back(id, std::string(value));
    return true;
  });
  return jobs;
}

}  // namespace corpusd
