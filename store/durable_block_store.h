// store/durable_block_store.h -- BlockStore over one data folder: FOLDER/LOCK, FOLDER/catalog and
// FOLDER/payload (RocksDB), and a host tier. One mutex orders changes of the catalogue; payload is
// written and read outside it. Internal to the store.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "store/block_store.h"
#include "store/catalog.h"
#include "store/folder_lock.h"
#include "store/host_tier.h"
#include "store/payload_store.h"

namespace corpusd {

class DurableBlockStore final : public BlockStore {
 public:
  DurableBlockStore(const BlockStoreOptions& options, std::unique_ptr<FolderLock> lock,
                    std::unique_ptr<Catalog> catalog, std::unique_ptr<PayloadStore> payload);

  Result<CorpusRecord> CreateCorpus(CorpusRecord record, std::span<const TokenId> tokens) override;
  Result<CorpusRecord> GetCorpus(std::string_view name) const override;
  std::vector<CorpusRecord> ListCorpora() const override;
  Result<std::vector<TokenId>> CorpusTokens(std::string_view name) const override;
  Result<CorpusRecord> UpdateCorpus(const CorpusRecord& record) override;
  Result<CorpusRecord> ReplaceTokens(const CorpusRecord& record,
                                     std::span<const TokenId> tokens) override;
  Status NoteUse(std::string_view name) override;
  Status RenameCorpus(std::string_view from, std::string_view to) override;
  Status RemoveCorpus(std::string_view name) override;

  Result<size_t> LongestPrefix(std::span<const Digest> chain,
                               std::span<const TokenId> tokens) const override;
  Result<CorpusRecord> Publish(const CorpusRecord& record,
                               std::span<const BlockWrite> blocks) override;
  Result<CorpusRecord> AdoptBlocks(const CorpusRecord& record,
                                   std::span<const Digest> blocks) override;
  Status Repair(const BlockWrite& block) override;
  Result<std::vector<BlockRef>> Fetch(std::span<const Digest> digests, FetchStats* stats) override;

  Result<VerifyReport> Verify(
      std::string_view name,
      const std::function<bool(uint64_t done, uint64_t total)>& progress) override;
  Result<EvictReport> Evict(std::string_view name, TierKind from, bool dry_run) override;
  std::vector<TierUsage> Usage() const override;
  CorpusUsage UsageOf(const CorpusRecord& record) const override;
  std::vector<std::string> Diagnose() const override;

  Status PutJob(uint64_t id, std::string_view record) override;
  std::vector<std::pair<uint64_t, std::string>> ListJobs() const override;
  Status RemoveJob(uint64_t id) override;

 private:
  // The stored record of this id, if its generation is still the caller's. Holds mutex_.
  Result<const CorpusRecord*> CurrentLocked(const CorpusRecord& record) const;
  // Commits a changed record (generation + 1), adjusting references for a chain that grew or
  // shrank.
  Result<CorpusRecord> CommitRecordLocked(CorpusRecord record, const CorpusRecord& old,
                                          Catalog::Change* change);
  // Lowers the reference of each digest; unreferenced entries go.
  Status ReleaseLocked(std::span<const Digest> digests, Catalog::Change* change);
  Status CommitLocked(const Catalog::Change& change, bool sync);
  Status CheckDiskRoom(uint64_t needed_bytes) const;
  void KeepInHostTier(std::span<const BlockWrite> blocks, const CorpusRecord& record);
  void Quarantine(const Digest& digest);
  void RefreshPins();

  struct Missing;
  Status ReadMissing(std::span<Missing> missing);
  void ReadOne(Missing& missing);

  const BlockStoreOptions options_;
  const std::unique_ptr<FolderLock> lock_;
  const std::unique_ptr<Catalog> catalog_;
  const std::unique_ptr<PayloadStore> payload_;
  HostTier host_;
  mutable std::mutex mutex_;
};

}  // namespace corpusd
