// store/catalog.h -- the durable facts: corpora by name, their chains and tokens, chain entries by
// digest, jobs. Every change is one synced write batch. Not thread-safe: the block store holds its
// mutex around each call (reads of chain entries excepted, which RocksDB itself makes safe).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "store/base/result.h"
#include "store/half_life_contest.h"
#include "store/miss_explain.h"
#include "store/miss_reason.h"
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
  // The longest prefix of the chain that a corpus's chain begins with, without quarantined blocks;
  // that corpus's blocks and tokens in all.
  struct CommonChain {
    uint64_t corpus_id = 0;
    size_t blocks = 0;
    size_t corpus_blocks = 0;
    uint64_t corpus_tokens = 0;
  };
  CommonChain LongestCommonChain(std::span<const Digest> chain) const;
  // Whether the corpus's token ids begin with these: by the sums that were written with them, but
  // for a part of a chunk. Thread-safe.
  Result<bool> BeginsWith(uint64_t corpus_id, std::span<const TokenId> tokens) const;
  // In order; an absent one is empty. Thread-safe.
  Result<std::vector<std::vector<TokenId>>> BlockTokens(std::span<const Digest> digests) const;
  // Payload bytes of chain entries, by the extent that they lie in.
  const std::map<uint64_t, uint64_t>& live_bytes() const { return live_bytes_; }
  // Extents that entries lie in, with what they take on disk; 0 for those of schema 1.
  std::map<uint64_t, uint64_t> NamedExtents() const;
  // The chain entries in these extents. Thread-safe.
  using DigestEntries = std::vector<std::pair<Digest, ChainEntry>>;
  Result<std::map<uint64_t, DigestEntries>> EntriesIn(const std::set<uint64_t>& extents) const;
  // Sentences about every place where records, chains, references and entries contradict each
  // other; none unless there is a bug or RocksDB lost something.
  std::vector<std::string> Contradictions() const;

  // What is remembered of the corpora's uses, by id.
  const std::map<uint64_t, Heat>& heats() const { return heats_; }

  // --- what was evicted, oldest first
  using NoteKey = std::pair<uint64_t, uint64_t>;  // corpus id, first block
  std::vector<EvictionNote> EvictionNotes() const;

  // --- changes, collected and then committed at once
  class Change {
   public:
    // Writes what differs between the old record (null: none) and the new.
    void PutRecord(const CorpusRecord& record, const CorpusRecord* old);
    // Only record.last_used_at_ms and what is remembered of the corpus's uses.
    void PutUse(const CorpusRecord& record, const Heat& heat);
    // The same beside a PutRecord.
    void PutHeat(const CorpusRecord& record, const Heat& heat);
    void RemoveRecord(const CorpusRecord& record);
    void PutTokens(uint64_t corpus_id, std::span<const TokenId> tokens, size_t old_tokens);
    void PutEntry(const Digest& digest, const ChainEntry& entry);
    // What the extent takes on disk. REQUIRES: put with its first entries.
    void PutExtent(uint64_t extent, uint64_t bytes);
    void PutBlockTokens(const Digest& digest, std::span<const TokenId> tokens);
    void RemoveEntry(const Digest& digest);
    // That a corpus was made with this root.
    void PutRoot(const CorpusRecord& record);
    void PutJob(uint64_t id, std::string_view record);
    void RemoveJob(uint64_t id);
    void PutNote(const EvictionNote& note);
    void DropNote(const NoteKey& key);

   private:
    friend class Catalog;
    // Rows of a chain, from the one with block `same` on; old_blocks: how many it had.
    void PutChain(uint64_t corpus_id, std::span<const Digest> chain, size_t same,
                  size_t old_blocks);
    RocksBatch batch_;
    std::vector<CorpusRecord> put_;
    std::vector<std::string> removed_;
    std::vector<uint64_t> removed_ids_;
    std::map<uint64_t, Heat> heats_;
    std::map<NoteKey, EvictionNote> notes_;
    std::set<NoteKey> dropped_notes_;
    std::unordered_map<Digest, ChainEntry, DigestHash> entries_;  // references 0: removed
    std::map<uint64_t, uint64_t> extents_;
    bool changes_tokens_ = false;
  };
  // Adds the note to the change, joining or forgetting others so that their number stays bounded.
  // At most one call for each corpus and change.
  void NoteEviction(EvictionNote note, Change* change) const;
  // RETURNS the extents that no entry lies in any more.
  Result<std::vector<uint64_t>> Commit(const Change& change, bool sync);

  // Thread-safe.
  std::vector<RootRecord> Roots() const;
  uint64_t NextCorpusId();  // durable with the next commit of a record
  std::vector<std::pair<uint64_t, std::string>> Jobs() const;
  uint64_t PhysicalBytes() const { return database_->PhysicalBytes(); }
  // Whether the folder takes writes now. Thread-safe.
  Status ProbeWrites() const { return database_->ProbeWrites(); }

 private:
  explicit Catalog(std::unique_ptr<RocksDatabase> database) : database_(std::move(database)) {}
  Status CheckSchema();
  Status Reload();
  Status LoadRecords();
  Status LoadChains();
  Status LoadDetails(CorpusRecord* record);
  Status LoadExtents();
  Status LoadQuarantined();
  Status LoadNotes();
  // Of folders of schemas 1 and 2: what later ones keep is counted, and written.
  Status CountEntries();
  Status Upgrade();
  Status DropOldManifests();
  void ApplyNotes(const Change& change);
  // kNotFound: the corpus has no token ids. Thread-safe.
  Result<std::shared_ptr<const TokenSums>> SumsOf(uint64_t corpus_id) const;
  void ForgetSums();
  // Live bytes of the extents that the change touches, as they will be after it.
  std::map<uint64_t, uint64_t> LiveBytesAfter(const Change& change,
                                              std::span<const ChainEntry> old_entries) const;

  std::unique_ptr<RocksDatabase> database_;
  std::map<std::string, CorpusRecord, std::less<>> records_;
  std::map<uint64_t, uint64_t> live_bytes_;
  std::map<NoteKey, EvictionNote> notes_;
  std::map<uint64_t, uint64_t> extent_bytes_;
  std::unordered_set<Digest, DigestHash> quarantined_;
  std::map<uint64_t, Heat> heats_;
  // Of corpora that were looked up, by id.
  mutable std::mutex sums_mutex_;
  mutable std::map<uint64_t, std::shared_ptr<const TokenSums>> sums_;
  uint64_t sums_version_ = 0;
  bool older_ = false;  // the folder is of schema 1 or 2 until it is upgraded
  uint64_t next_corpus_id_ = 1;
  bool stale_ = false;  // a reload failed; the next commit tries again
};

}  // namespace corpusd
