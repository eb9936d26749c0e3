#include "store/catalog.h"

#include <algorithm>

#include "store/base/crc32c.h"
#include "store/base/fault_point.h"
#include "store/catalog_families.h"
#include "store/key_codec.h"
#include "store/root_record.h"

namespace corpusd {
namespace {

std::vector<std::string> KeysOf(std::span<const Digest> digests) {
  std::vector<std::string> keys;
  keys.reserve(digests.size());
  for (const Digest& digest : digests) keys.emplace_back(AsText(digest));
  return keys;
}

}  // namespace

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
    for (const HeldPart& held : HeldParts(record)) {
      ++references[held.digest];
      if (Entry(held.digest).ok()) continue;
      found.push_back("corpus '" + name + "' names part " + record.parts[held.part].kind +
                      " of block " + std::to_string(held.block) + ", which is not stored");
    }
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
  std::map<uint64_t, uint64_t> live_bytes;
  const auto visit = [&](std::string_view key, std::string_view value) {
    const auto entry = DecodeChainEntry(value);
    Digest digest;
    if (entry.ok() && AsDigest(key, &digest)) {
      live_bytes[entry->location.extent] += entry->payload_bytes;
      if (entry->quarantined != quarantined_.contains(digest)) {
        found.push_back("block " + digest.Hex().substr(0, 12) +
                        " is quarantined in one place only");
      }
    }
    if (entry.ok() && AsDigest(key, &digest) && entry->references != references[digest]) {
      found.push_back("block " + digest.Hex().substr(0, 12) + " counts " +
                      std::to_string(entry->references) + " references, corpora hold " +
                      std::to_string(references[digest]));
    }
    return true;
  };
  const Status scanned = database_->Scan(kChains, "", visit);
  if (!scanned.ok()) found.push_back(scanned.ToString());
  if (live_bytes != live_bytes_) {
    found.emplace_back("the bytes counted for extents are not those of their blocks");
  }
  return found;
}

void Catalog::Change::PutRecord(const CorpusRecord& record, const CorpusRecord* old) {
  static const CorpusRecord kNone;
  const CorpusRecord& before = old != nullptr ? *old : kNone;
  batch_.Put(kCorpora, KeyOf(record.id), EncodeRecord(record));
  if (!record.parts.empty() && before.parts.empty()) batch_.Put(kMeta, "schema", kPartsSchema);
  if (!(record.sources == before.sources)) {
    batch_.Put(kSources, KeyOf(record.id), EncodeSources(record.sources));
  }
  const size_t same = record.chain.CommonPrefix(before.chain);
  if (same != record.chain.size() || same != before.chain.size()) {
    PutChain(record.id, record.chain, same, before.chain.size());
  }
  put_.push_back(record);
}

void Catalog::Change::PutChain(uint64_t corpus_id, std::span<const Digest> chain, size_t same,
                               size_t old_blocks) {
  for (size_t row = same / kDigestsPerRow; row < RowsOf(chain.size()); ++row) {
    const size_t first = row * kDigestsPerRow;
    const auto digests =
        std::as_bytes(chain.subspan(first, std::min(kDigestsPerRow, chain.size() - first)));
    batch_.Put(kChainRows, KeyOf(corpus_id, static_cast<uint32_t>(row)),
               {reinterpret_cast<const char*>(digests.data()), digests.size()});
  }
  for (size_t row = RowsOf(chain.size()); row < RowsOf(old_blocks); ++row) {
    batch_.Delete(kChainRows, KeyOf(corpus_id, static_cast<uint32_t>(row)));
  }
}

void Catalog::Change::PutUse(const CorpusRecord& record, const Heat& heat) {
  PutHeat(record, heat);
  put_.push_back(record);
}

void Catalog::Change::PutHeat(const CorpusRecord& record, const Heat& heat) {
  batch_.Put(kUses, KeyOf(record.id), EncodeUse({record.last_used_at_ms, heat}));
  heats_[record.id] = heat;
}

void Catalog::Change::RemoveRecord(const CorpusRecord& record) {
  batch_.Delete(kCorpora, KeyOf(record.id));
  batch_.Delete(kSources, KeyOf(record.id));
  batch_.Delete(kUses, KeyOf(record.id));
  PutChain(record.id, {}, 0, record.chain.size());
  for (size_t c = 0; c < ChunksOf(record.tokens); ++c) {
    batch_.Delete(kTokens, KeyOf(record.id, static_cast<uint32_t>(c)));
  }
  batch_.Delete(kMeta, std::string(kTokenSumsPrefix) + KeyOf(record.id));
  removed_.push_back(record.name);
  removed_ids_.push_back(record.id);
}

void Catalog::Change::PutTokens(uint64_t corpus_id, std::span<const TokenId> tokens,
                                size_t old_tokens) {
  changes_tokens_ = true;
  const size_t chunks = ChunksOf(tokens.size());
  TokenSums sums;
  sums.tokens = tokens.size();
  for (size_t c = 0; c < chunks; ++c) {
    const size_t first = c * kTokensPerChunk;
    const auto chunk = tokens.subspan(first, std::min(kTokensPerChunk, tokens.size() - first));
    batch_.Put(kTokens, KeyOf(corpus_id, static_cast<uint32_t>(c)), EncodeTokens(chunk));
    sums.chunks.push_back(Crc32c(std::as_bytes(chunk)));
  }
  batch_.Put(kMeta, std::string(kTokenSumsPrefix) + KeyOf(corpus_id), EncodeTokenSums(sums));
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
  RocksBatch counts;
  for (const auto& [extent, bytes] : live_after) {
    if (bytes == 0) {
      counts.Delete(kExtents, KeyOf(extent));
      continue;
    }
    const auto put = change.extents_.find(extent);
    const auto known = extent_bytes_.find(extent);
    const uint64_t on_disk = put != change.extents_.end()   ? put->second
                             : known != extent_bytes_.end() ? known->second
                                                            : 0;
    counts.Put(kExtents, KeyOf(extent), EncodeExtent({on_disk, bytes}));
  }
  for (const auto& [digest, entry] : change.entries_) {
    const bool damaged = entry.references > 0 && entry.quarantined;
    if (damaged == quarantined_.contains(digest)) continue;
    const std::string key = std::string(kQuarantinedPrefix) + std::string(AsText(digest));
    damaged ? counts.Put(kMeta, key, "") : counts.Delete(kMeta, key);
  }
  if (const Status written = database_->Write(change.batch_, sync, &counts); !written.ok()) {
    stale_ = !Reload().ok();
    return written;
  }
  (void)FaultPoint("catalog.written");  // for crashes: an error here would be a lie
  // Memory follows what is durable. A name that one corpus leaves may be another's by the same
  // change.
  for (const std::string& name : change.removed_) records_.erase(name);
  for (const CorpusRecord& record : change.put_) {
    std::erase_if(records_, [&](const auto& item) { return item.second.id == record.id; });
    records_.insert_or_assign(record.name, record);
  }
  for (const auto& [id, heat] : change.heats_) heats_[id] = heat;
  for (const uint64_t id : change.removed_ids_) heats_.erase(id);
  if (change.changes_tokens_ || !change.removed_.empty()) ForgetSums();
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
