// store/durable_block_store.h -- BlockStore over one data folder: FOLDER/LOCK, FOLDER/catalog
// (RocksDB), FOLDER/segments, and a host tier. One mutex orders changes of the catalogue; payload
// is written and read outside it. Internal to the store: block_store.cc holds the corpora,
// block_publish.cc what writes blocks, block_fetch.cc what reads them.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "store/block_loader.h"
#include "store/block_store.h"
#include "store/catalog.h"
#include "store/device_tier.h"
#include "store/disk_eviction.h"
#include "store/eviction_policy.h"
#include "store/folder_lock.h"
#include "store/host_tier.h"
#include "store/payload_store.h"
#include "store/section_reader.h"
#include "store/sidecar_store.h"

namespace corpusd {

inline Status NoCorpusError(std::string_view name) {
  return NotFoundError("corpus '" + std::string(name) + "' does not exist");
}

class DurableBlockStore final : public BlockStore, public SectionSource, private BlockSource {
 public:
  DurableBlockStore(const BlockStoreOptions& options, std::unique_ptr<FolderLock> lock,
                    std::unique_ptr<Catalog> catalog, std::unique_ptr<PayloadStore> payload,
                    std::unique_ptr<SidecarStore> sidecars);

  Result<CorpusRecord> CreateCorpus(CorpusRecord record, std::span<const TokenId> tokens) override;
  Result<CorpusRecord> GetCorpus(std::string_view name) const override;
  std::vector<CorpusRecord> ListCorpora() const override;
  Result<std::vector<TokenId>> CorpusTokens(std::string_view name) const override;
  Result<CorpusRecord> UpdateCorpus(const CorpusRecord& record) override;
  Result<CorpusRecord> ReplaceTokens(const CorpusRecord& record,
                                     std::span<const TokenId> tokens) override;
  Status NoteUse(std::string_view name) override;
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
  Result<uint64_t> PromoteToDevice(std::span<const Digest> chain, std::span<const BlockRef> blocks,
                                   const std::stop_token& stop) override;
  std::vector<DeviceRef> OnDevice(std::span<const Digest> digests) override;
  Status ReadBlock(const Digest& digest, std::vector<std::byte>* payload,
                   uint32_t* sections) override;
  Result<std::unique_ptr<SectionReader>> ReadInTurn(std::span<const Digest> chain) override;
  Status PutSidecarParts(uint64_t corpus_id, std::string_view kind,
                         std::span<const std::span<const std::byte>> parts) override;
  Result<std::shared_ptr<const SidecarReader>> OpenSidecar(uint64_t corpus_id,
                                                           std::string_view kind) const override;
  Result<uint64_t> AttachShelf(uint32_t number, const OpenShelf& open) override;
  void DetachShelf(uint32_t number) override;
  Result<std::vector<std::optional<BlockLocation>>> Locations(
      std::span<const Digest> digests) const override;
  Status GiveUp(std::span<const Digest> digests) override;
  Result<std::map<uint32_t, uint64_t>> BytesByShelf(const CorpusRecord& record) const override;
  Result<std::map<uint32_t, uint64_t>> PinnedByShelf() const override;
  Status MakeRoomOnShelf(uint32_t number, uint64_t bytes, const CorpusRecord& record) override;
  Result<std::vector<BlockPresence>> Presence(std::span<const Digest> digests) const override;
  std::vector<RootRecord> Roots() const override;

  Result<VerifyReport> Verify(
      std::string_view name,
      const std::function<bool(uint64_t done, uint64_t total)>& progress) override;
  Result<EvictReport> Evict(std::string_view name, TierKind from, bool dry_run) override;
  Result<EvictPlan> EvictByPolicy(TierKind from, uint64_t bytes, bool dry_run) override;
  Status TrimDisk() override;
  EvictionCounts evictions() const override;
  std::vector<EvictionNote> EvictionNotes() const override;
  std::vector<TierUsage> Usage() const override;
  CorpusUsage UsageOf(const CorpusRecord& record) const override;
  WriteGate& write_gate() override { return gate_; }
  LeaseTable& leases() override { return leases_; }
  std::vector<Digest> HeldWithoutLease() const override;
  std::vector<std::string> Diagnose() const override;

  Status PutJob(uint64_t id, std::string_view record) override;
  std::vector<std::pair<uint64_t, std::string>> ListJobs() const override;
  Status RemoveJob(uint64_t id) override;

 private:
  // Blocks that left the disk tier.
  struct Departure {
    EvictionReason reason = EvictionReason::kRoom;
    uint64_t blocks = 0, bytes = 0;
  };

  // The stored record of this id, if its generation is still the caller's. Holds mutex_.
  Result<const CorpusRecord*> CurrentLocked(const CorpusRecord& record) const;
  // Commits a changed record (generation + 1), releasing blocks that its chain lost, and parts.
  Result<CorpusRecord> CommitRecordLocked(CorpusRecord record, const CorpusRecord& old,
                                          Catalog::Change* change);
  // Adds to the change that the corpus goes: its name, references and tokens, and a note of why.
  // RETURNS what will leave with it, for Tell once the change is durable.
  Result<Departure> RemoveLocked(const CorpusRecord& record, Catalog::Change* change);
  // What is known outside the catalogue of a corpus that has gone. Holds mutex_.
  void ForgetLocked(uint64_t corpus_id);
  Result<CorpusRecord> RecordOf(uint64_t corpus_id) const;
  // Room for a sidecar of so many bytes, within the cap.
  Result<std::unique_ptr<SidecarStore::Draft>> BeginSidecar(const CorpusRecord& record,
                                                            std::string_view kind, uint64_t bytes);
  // Adds to the change what the catalogue remembers of a corpus's blocks from first_block on.
  void NoteGoneLocked(const CorpusRecord& record, size_t first_block, EvictionReason reason,
                      std::string detail, Catalog::Change* change);
  // Shortens the corpus's chain to `keep` blocks in one durable batch, with a note of why. Space
  // comes back with the batch, memory when leases end. RETURNS what left.
  Result<EvictReport> CutTailLocked(const CorpusRecord& record, size_t keep, EvictionReason reason,
                                    std::string detail);
  // Lowers the reference of each digest; unreferenced entries go. gone, if not null: counts them.
  Status ReleaseLocked(std::span<const Digest> digests, Catalog::Change* change,
                       Departure* gone = nullptr);
  void Tell(const Departure& gone) const;
  // Commits, and drops the extents that this left empty.
  Status CommitLocked(const Catalog::Change& change, bool sync);
  // kInvalidArgument unless every block can be stored.
  static Status CheckBlocks(std::span<const BlockWrite> blocks);
  // kResourceExhausted unless the cap, less what the catalogue may grow by, and the disk have
  // room; a disk that is full shuts the gate.
  Status CheckDiskRoom(uint64_t needed_bytes);
  // kResourceExhausted unless the cap has room; for what goes into the catalogue alone.
  Status CheckCap(uint64_t needed_bytes) const;
  // Whether the disk takes writes, and has room for so many bytes.
  Status ProbeDisk(uint64_t needed_bytes) const;
  uint64_t FreeDiskBytes() const;  // less a reserve for the catalogue
  // kResourceExhausted if the record promises more than `old`, whose pin it has or takes over
  // (null: it is new), and that does not fit. Holds mutex_.
  Status CheckPinLocked(const CorpusRecord& record, const CorpusRecord* old) const;
  // What the cap leaves to payload and catalogue together, less what the catalogue may grow by.
  uint64_t DiskRoomBytes() const;
  uint64_t DiskUsedBytes() const;
  // Evicts others by policy if so many bytes for this corpus would pass the high watermark; `what`
  // names it in the notes. kResourceExhausted, with the numbers and nothing evicted, if they cannot
  // fit; of 0 bytes: evicts as far as it goes. Does nothing unless evict_disk. Takes mutex_.
  // shelf: on which disk; 0: the folder's.
  Status MakeRoom(uint64_t needed_bytes, const CorpusRecord& record, const std::string& what,
                  uint32_t shelf = 0);
  // One disk: what may lie there, and what does.
  struct DiskSpace {
    uint64_t capacity_bytes = 0, room_bytes = 0, used_bytes = 0;
  };
  Result<DiskSpace> SpaceOf(uint32_t shelf) const;
  // Of the disk tier, for the corpus of this id (0: none). Holds mutex_.
  // room: for whom; null: whoever it is, all may go. shelf: on which disk; none: on any.
  Result<EvictPlan> PlanEvictionLocked(uint64_t bytes, const CorpusRecord* room,
                                       std::optional<uint32_t> shelf) const;
  Status ExecuteLocked(EvictPlan* plan, EvictionReason reason, const std::string& detail);
  EvictPlan EvictFromMemory(TierKind from, uint64_t bytes, bool dry_run);
  // The corpora that may lose blocks; adds to the plan why others may not.
  std::vector<EvictableCorpus> EvictableLocked(const CorpusRecord* room, EvictPlan* plan) const;
  // Heat of corpora of which the catalogue remembers none, by their last use.
  void SeedHeat();
  Heat HeatOfLocked(uint64_t corpus_id) const;
  // Notes a use of the corpus, for the disk tier's policy. RETURNS its heat from now on.
  Heat UseLocked(const CorpusRecord& record, int64_t correlated_ms);
  // One extent that a publish wrote. Parts lie in one of their own, which goes as a whole when
  // nothing can see them any more.
  struct FreshExtent {
    std::vector<const BlockWrite*> blocks;
    PayloadStore::Extent extent;
    uint64_t epoch = 0;  // of the shelf that it was written to
  };
  // One durable extent with these blocks of the corpus, within the cap of its disk; on a shelf that
  // has no room, in the folder.
  Result<FreshExtent> WritePayload(std::vector<const BlockWrite*> blocks,
                                   const CorpusRecord& record, uint32_t shelf);
  // The shelf of a block, if it is there, else the folder.
  uint32_t ShelfFor(const CorpusRecord& record, uint64_t position) const;
  // Writes those that are not stored: the first chain_blocks together, the parts behind them
  // together, on each disk. positions: of each in the chain.
  Status WriteFresh(std::span<const BlockWrite> blocks, size_t chain_blocks,
                    std::span<const uint64_t> positions, const CorpusRecord& record,
                    std::vector<FreshExtent>* fresh);
  static void AddShelved(const BlockWrite& block, std::vector<FreshExtent>* fresh);
  // Gives up what was written for a publish that does not happen. unnamed: no commit that may come
  // back after a crash names it. Holds mutex_.
  void DiscardLocked(std::span<const FreshExtent> fresh, bool unnamed);
  // Ok if no shelf has gone since these were written there. Holds mutex_.
  Status CheckShelvesLocked(std::span<const FreshExtent> fresh) const;
  uint64_t ShelfEpoch(uint32_t shelf) const;
  std::vector<std::string> DiagnoseShelves() const;
  // Adds one reference to each block, located where it was written, if it was. positions: of each
  // in the chain.
  Status ReferenceLocked(const CorpusRecord& record, std::span<const BlockWrite> blocks,
                         std::span<const uint64_t> positions, std::span<const FreshExtent> fresh,
                         Catalog::Change* change);
  // The extent was written for a change that did not happen, or did not need it.
  void DiscardExtentLocked(uint64_t extent);
  // blocks: those that a publish ended the record's chain with, then `parts` parts of them.
  void KeepInHostTier(std::span<const BlockWrite> blocks, std::span<const uint64_t> positions,
                      size_t parts, const CorpusRecord& record);
  // By the corpus's token ids and the rule of its segments; of what does not follow: zeros.
  Result<std::vector<Digest>> ExpectedDigests(
      const CorpusRecord& record, std::span<const std::vector<TokenId>> block_tokens) const;
  // Reads one block for Verify; damaged ones are quarantined.
  Status VerifyBlock(const Digest& digest, bool tokens_agree, VerifyReport* report);
  // Marks the block as damaged if it still is where it was read.
  void Quarantine(const Digest& digest, const BlockLocation& location) override;
  void RefreshPins();
  // Pins blocks that the corpus just got, if it is pinned.
  void PinMoreLocked(const CorpusRecord& record, std::span<const Digest> blocks);
  TierTable::Pins PinsOfLocked(TierKind tier) const;
  // Rewrites extents of which less than half is still in use.
  void ReclaimSpace();
  void RewriteExtent(const Catalog::DigestEntries& entries);

  class Sections;
  struct Promotion;
  Status CopyToDevice(const BlockRef& block, const ChainEntry& entry, Promotion& promotion,
                      const std::stop_token& stop);

  // BlockSource: the disk, for the loader.
  Result<std::vector<ChainEntry>> Entries(std::span<const Digest> digests) const override;
  bool ReadsParts() const override { return PayloadStore::ReadsParts(); }
  Result<TierKind> ReadSections(const Digest& digest, const ChainEntry& entry, SectionRange range,
                                std::span<std::byte> payload) override;

  const BlockStoreOptions options_;
  const std::unique_ptr<FolderLock> lock_;
  const std::unique_ptr<Catalog> catalog_;
  const std::unique_ptr<PayloadStore> payload_;
  const std::unique_ptr<SidecarStore> sidecars_;
  HostTier host_;
  const std::unique_ptr<DeviceTier> device_;  // null: there is none
  WriteGate gate_;
  LeaseTable leases_;
  mutable std::mutex mutex_;       // orders changes of the catalogue
  std::vector<uint64_t> orphans_;  // extents to drop after the next commit that succeeds
  std::map<uint32_t, uint64_t> shelf_epochs_;
  std::map<uint32_t, uint64_t> shelf_bytes_;  // capacities, of those that are away as they were
  EvictionPolicy disk_policy_;                // of corpora, by id
  EvictionCounts evictions_;
  std::map<uint64_t, Heat> seeded_heats_;
  std::map<uint64_t, int64_t> published_ms_;  // when a corpus last got blocks, by id
  std::mutex evict_mutex_;                    // one eviction by policy at a time; before mutex_
  std::mutex payload_mutex_;  // orders payload writes, so that the disk cap is exact
  std::mutex promote_mutex_;  // one promotion to the device at a time
  BlockLoader loader_;
  TransferQueue transfers_;  // last, so that its threads end before what they use
};

}  // namespace corpusd
