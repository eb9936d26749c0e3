#include "store/catalog.h"

#include <algorithm>

#include "store/base/fault_point.h"
#include "store/key_codec.h"

namespace corpusd {
namespace {

enum Family : size_t { kMeta, kCorpora, kChains, kManifests, kTokens, kBlockTokens, kJobs };
const std::vector<std::string> kFamilies = {"meta",   "corpora",      "chains", "manifests",
                                            "tokens", "block_tokens", "jobs"};
constexpr std::string_view kSchema = "1";

std::string_view AsText(const Digest& digest) {
  return {reinterpret_cast<const char*>(digest.bytes.data()), digest.bytes.size()};
}

bool AsDigest(std::string_view text, Digest* digest) {
  if (text.size() != digest->bytes.size()) return false;
  std::copy(text.begin(), text.end(), digest->bytes.begin());
  return true;
}

size_t ChunksOf(size_t tokens) { return (tokens + kTokensPerChunk - 1) / kTokensPerChunk; }

}  // namespace

Result<std::unique_ptr<Catalog>> Catalog::Open(const std::string& folder) {
  ASSIGN_OR_RETURN(auto database,
                   RocksDatabase::Open(folder, RocksDatabase::Use::kCatalog, kFamilies));
  std::unique_ptr<Catalog> catalog(new Catalog(std::move(database)));
  RETURN_IF_ERROR(catalog->CheckSchema());
  RETURN_IF_ERROR(catalog->Load());
  return catalog;
}

Status Catalog::CheckSchema() {
  const auto schema = database_->Get(kMeta, "schema");
  if (schema.ok()) {
    if (*schema == kSchema) return OkStatus();
    return FailedPreconditionError("the data folder has store schema " + *schema +
                                   ", this version reads schema " + std::string(kSchema) +
                                   ": use the version that wrote it, or another --data-dir");
  }
  if (schema.status().code() != StatusCode::kNotFound) return schema.status();
  RocksBatch batch;
  batch.Put(kMeta, "schema", kSchema);
  return database_->Write(batch, /*sync=*/true);
}

Status Catalog::Load() {
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
    RETURN_IF_ERROR(database_->Scan(kManifests, KeyOf(record.id),
                                    [&chain = record.chain](std::string_view, std::string_view v) {
                                      Digest digest;
                                      if (AsDigest(v, &digest)) chain.push_back(digest);
                                      return true;
                                    }));
  }
  RETURN_IF_ERROR(database_->Scan(kChains, "", [&](std::string_view, std::string_view value) {
    const auto entry = DecodeChainEntry(value);
    if (!entry.ok()) {
      bad = entry.status();
      return false;
    }
    ++extent_entries_[entry->location.extent];
    return true;
  }));
  RETURN_IF_ERROR(bad);
  if (const auto id = database_->Get(kMeta, "next_corpus_id"); id.ok()) {
    uint64_t stored = 0;
    if (ReadBigEndian(*id, 0, &stored)) next_corpus_id_ = std::max(next_corpus_id_, stored);
  }
  return OkStatus();
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
  std::vector<std::string> keys;
  keys.reserve(digests.size());
  for (const Digest& digest : digests) keys.emplace_back(AsText(digest));
  ASSIGN_OR_RETURN(const auto values, database_->MultiGet(kChains, keys));
  std::vector<ChainEntry> entries(digests.size());
  for (size_t i = 0; i < values.size(); ++i) {
    if (!values[i].first) continue;
    ASSIGN_OR_RETURN(entries[i], DecodeChainEntry(values[i].second));
  }
  return entries;
}

Result<std::vector<TokenId>> Catalog::BlockTokens(const Digest& digest) const {
  ASSIGN_OR_RETURN(const std::string bytes, database_->Get(kBlockTokens, AsText(digest)));
  std::vector<TokenId> tokens;
  RETURN_IF_ERROR(DecodeTokens(bytes, &tokens));
  return tokens;
}

std::set<uint64_t> Catalog::LiveExtents() const {
  std::set<uint64_t> live;
  for (const auto& [extent, entries] : extent_entries_) live.insert(extent);
  return live;
}

void Catalog::Change::PutRecord(const CorpusRecord& record, size_t changed_from,
                                size_t old_blocks) {
  batch_.Put(kCorpora, KeyOf(record.id), EncodeRecord(record));
  for (size_t i = changed_from; i < record.chain.size(); ++i) {
    batch_.Put(kManifests, KeyOf(record.id, static_cast<uint32_t>(i)), AsText(record.chain[i]));
  }
  for (size_t i = record.chain.size(); i < old_blocks; ++i) {
    batch_.Delete(kManifests, KeyOf(record.id, static_cast<uint32_t>(i)));
  }
  put_.push_back(record);
}

void Catalog::Change::RemoveRecord(const CorpusRecord& record) {
  batch_.Delete(kCorpora, KeyOf(record.id));
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

void Catalog::Change::PutBlockTokens(const Digest& digest, std::span<const TokenId> tokens) {
  batch_.Put(kBlockTokens, AsText(digest), EncodeTokens(tokens));
}

void Catalog::Change::RemoveEntry(const Digest& digest) {
  batch_.Delete(kChains, AsText(digest));
  batch_.Delete(kBlockTokens, AsText(digest));
  entries_[digest] = {};
}

void Catalog::Change::PutJob(uint64_t id, std::string_view record) {
  batch_.Put(kJobs, KeyOf(id), record);
}

void Catalog::Change::RemoveJob(uint64_t id) { batch_.Delete(kJobs, KeyOf(id)); }

Result<std::vector<uint64_t>> Catalog::Commit(const Change& change, bool sync) {
  RETURN_IF_ERROR(FaultPoint("catalog.write"));
  std::vector<Digest> digests;
  for (const auto& [digest, entry] : change.entries_) digests.push_back(digest);
  ASSIGN_OR_RETURN(const auto old_entries, Entries(digests));
  RETURN_IF_ERROR(database_->Write(change.batch_, sync));
  // Memory follows what is durable.
  for (const CorpusRecord& record : change.put_) {
    std::erase_if(records_, [&](const auto& item) { return item.second.id == record.id; });
    records_.insert_or_assign(record.name, record);
  }
  for (const std::string& name : change.removed_) records_.erase(name);
  std::vector<uint64_t> emptied;
  for (size_t i = 0; i < digests.size(); ++i) {
    const ChainEntry& entry = change.entries_.at(digests[i]);
    if (entry.references > 0) ++extent_entries_[entry.location.extent];
    if (old_entries[i].references == 0) continue;
    const uint64_t extent = old_entries[i].location.extent;
    if (--extent_entries_[extent] == 0) {
      extent_entries_.erase(extent);
      emptied.push_back(extent);
    }
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
