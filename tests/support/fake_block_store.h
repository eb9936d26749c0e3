// tests/support/fake_block_store.h -- a BlockStore in memory, for tests of what stands above the
// store. Its content is a FakeDisk, which outlives it: another FakeBlockStore over the same disk is
// a restart. Thread-safe.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "store/block_store.h"

namespace corpusd {

struct FakeDisk {
  std::mutex mutex;
  std::map<std::string, CorpusRecord, std::less<>> corpora;
  std::map<uint64_t, std::string> jobs;
  std::map<std::pair<uint64_t, std::string>, std::vector<std::byte>> sidecars;
  uint64_t next_id = 1;
  bool full = false;  // writes are refused until it is false again
};

class FakeBlockStore : public BlockStore {
 public:
  explicit FakeBlockStore(std::shared_ptr<FakeDisk> disk);

  Result<CorpusRecord> CreateCorpus(CorpusRecord record, std::span<const TokenId> tokens) override;
  Result<CorpusRecord> GetCorpus(std::string_view name) const override;
  std::vector<CorpusRecord> ListCorpora() const override;
  Result<std::vector<TokenId>> CorpusTokens(std::string_view name) const override;
  Result<CorpusRecord> UpdateCorpus(const CorpusRecord& record) override;
  Result<CorpusRecord> ReplaceTokens(const CorpusRecord& record,
                                     std::span<const TokenId> tokens) override;
  Status RenameCorpus(std::string_view from, std::string_view to) override;
  Result<CorpusRecord> ReplaceCorpus(std::string_view from, std::string_view to,
                                     std::string_view previous,
                                     int64_t previous_expires_at_ms) override;
  Status RemoveCorpus(std::string_view name) override;
  Result<size_t> LongestPrefix(std::span<const Digest> chain,
                               std::span<const TokenId> tokens) const override;
  Result<std::vector<BlockPresence>> StoredBlocks(const CorpusChain& chain,
                                                  std::span<const Digest> digests,
                                                  std::span<const TokenId> tokens) const override;
  Result<CorpusRecord> Publish(const CorpusRecord& record,
                               std::span<const BlockWrite> blocks) override;
  Result<CorpusRecord> AdoptBlocks(const CorpusRecord& record,
                                   std::span<const Digest> blocks) override;
  Status Repair(const BlockWrite& block) override;
  Result<std::vector<BlockRef>> Fetch(std::span<const Digest> digests, FetchStats* stats) override;
  Result<std::unique_ptr<BlockPrefetch>> Prefetch(std::span<const Digest> digests,
                                                  const PrefetchOptions& options) override;
  Status ReadBlock(const Digest& digest, std::vector<std::byte>* payload,
                   uint32_t* sections) override;
  Result<std::vector<BlockPresence>> Presence(std::span<const Digest> digests) const override;
  Status PutSidecarParts(uint64_t corpus_id, std::string_view kind,
                         std::span<const std::span<const std::byte>> parts) override;
  Result<std::shared_ptr<const SidecarReader>> OpenSidecar(uint64_t corpus_id,
                                                           std::string_view kind) const override;
  std::vector<RootRecord> Roots() const override { return {}; }
  Result<uint64_t> PromoteToDevice(std::span<const Digest> chain, std::span<const BlockRef> blocks,
                                   const std::stop_token& stop) override;
  Status NoteUse(std::string_view name) override;
  Result<VerifyReport> Verify(std::string_view name,
                              const std::function<bool(uint64_t, uint64_t)>& progress) override;
  Result<EvictReport> Evict(std::string_view name, TierKind from, bool dry_run) override;
  // Every corpus that is not pinned, by name, as if it were one block.
  Result<EvictPlan> EvictByPolicy(TierKind from, uint64_t bytes, bool dry_run) override;
  Status TrimDisk() override { return OkStatus(); }
  EvictionCounts evictions() const override { return {}; }
  std::vector<EvictionNote> EvictionNotes() const override { return {}; }
  std::vector<TierUsage> Usage() const override;
  CorpusUsage UsageOf(const CorpusRecord& record) const override;
  std::vector<std::string> Diagnose() const override;
  WriteGate& write_gate() override { return gate_; }
  LeaseTable& leases() override { return leases_; }
  std::vector<Digest> HeldWithoutLease() const override { return {}; }
  Status PutJob(uint64_t id, std::string_view record) override;
  std::vector<std::pair<uint64_t, std::string>> ListJobs() const override;
  Status RemoveJob(uint64_t id) override;

 private:
  Status TryDisk() const;

  const std::shared_ptr<FakeDisk> disk_;
  WriteGate gate_;
  LeaseTable leases_;
};

}  // namespace corpusd
