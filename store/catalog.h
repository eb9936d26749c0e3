// store/catalog.h -- the durable facts: corpora by name, their chains and tokens, chain entries by
// digest, jobs. Every change is one synced write batch. Not thread-safe: the block store holds its
// mutex around each call (reads of chain entries excepted, which RocksDB itself makes safe).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "store/base/result.h"
#include "store/record_codec.h"
#include "store/rocks_database.h"

namespace corpusd {

class Catalog {
 public:
  static Result<std::unique_ptr<Catalog>> Open(const std::string& folder);

  // --- corpora, kept in memory as well
  const CorpusRecord* Find(std::string_view name) const;
  const std::map<std::string, CorpusRecord, std::less<>>& records() const { return records_; }
  Result<std::vector<TokenId>> Tokens(uint64_t corpus_id) const;

  // --- blocks
  // kNotFound if no corpus names the digest. Thread-safe.
  Result<ChainEntry> Entry(const Digest& digest) const;
  // In order; an absent one has references == 0. Thread-safe.
  Result<std::vector<ChainEntry>> Entries(std::span<const Digest> digests) const;
  Result<std::vector<TokenId>> BlockTokens(const Digest& digest) const;
  // Extents that some chain entry lies in.
  std::set<uint64_t> LiveExtents() const;

  // --- changes, collected and then committed at once
  class Change {
   public:
    // Writes the record; chain digests from index `changed_from` on are written, those beyond its
    // end that `old_blocks` had are deleted.
    void PutRecord(const CorpusRecord& record, size_t changed_from, size_t old_blocks);
    void RemoveRecord(const CorpusRecord& record);
    void PutTokens(uint64_t corpus_id, std::span<const TokenId> tokens, size_t old_tokens);
    void PutEntry(const Digest& digest, const ChainEntry& entry);
    void PutBlockTokens(const Digest& digest, std::span<const TokenId> tokens);
    void RemoveEntry(const Digest& digest);
    void PutJob(uint64_t id, std::string_view record);
    void RemoveJob(uint64_t id);

   private:
    friend class Catalog;
    RocksBatch batch_;
    std::vector<CorpusRecord> put_;
    std::vector<std::string> removed_;
    std::unordered_map<Digest, ChainEntry, DigestHash> entries_;  // references 0: removed
  };
  // RETURNS the extents that no entry lies in any more.
  Result<std::vector<uint64_t>> Commit(const Change& change, bool sync);

  uint64_t NextCorpusId();  // durable with the next commit of a record
  std::vector<std::pair<uint64_t, std::string>> Jobs() const;
  uint64_t PhysicalBytes() const { return database_->PhysicalBytes(); }

 private:
  explicit Catalog(std::unique_ptr<RocksDatabase> database) : database_(std::move(database)) {}
  Status Load();
  Status CheckSchema();

  std::unique_ptr<RocksDatabase> database_;
  std::map<std::string, CorpusRecord, std::less<>> records_;
  std::map<uint64_t, uint32_t> extent_entries_;  // extent -> entries in it
  uint64_t next_corpus_id_ = 1;
};

}  // namespace corpusd
