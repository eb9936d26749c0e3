// store/block_store.h -- the facade of the store: durable blocks by digest, corpora by name, over a
// host tier and a RocksDB tier in one data folder. Knows bytes; knows no model and no format.
// Thread-safe: every call may come from any thread. One process per data folder: Open refuses with
// the owner's pid.
//
// Publish order: payload -> checksums -> durable (synced) -> one WriteBatch of chain entries,
// references and the corpus record -> visible. A crash at any instant leaves whole blocks and a
// record that names only them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "store/base/result.h"
#include "store/block_prefetch.h"
#include "store/block_ref.h"
#include "store/block_shelf.h"
#include "store/corpus_record.h"
#include "store/disk_eviction.h"
#include "store/lease_table.h"
#include "store/miss_explain.h"
#include "store/miss_reason.h"
#include "store/prefix_hash.h"
#include "store/write_gate.h"

namespace corpusd {

class CorpusChain;    // store/corpus_chain.h
class DeviceMemory;   // store/device_memory.h
class StoreObserver;  // store/store_observer.h

struct BlockStoreOptions {
  std::string data_dir;
  uint64_t host_bytes = uint64_t{4} << 30;    // cap of the host tier, leased blocks included
  uint64_t disk_bytes = uint64_t{100} << 30;  // cap of the disk tier in physical bytes
  // Whether tails of unpinned corpora go when the disk tier is nearly full, by disk_eviction.h;
  // else what does not fit is refused.
  bool evict_disk = false;
  // In percent of disk_bytes: eviction begins above the first, and ends at the second.
  uint32_t disk_high_percent = 95;
  uint32_t disk_low_percent = 90;
  // Exact corpora are cut at multiples of so many blocks, segmented ones between segments.
  uint32_t evict_run_blocks = 1;
  uint32_t block_tokens = 0;       // of a whole block; 0: segmented corpora are evicted as a whole
  bool touch_host_memory = false;  // all of it from the start on, not a slice ahead of use
  // A device tier, if there is a device.
  std::shared_ptr<DeviceMemory> device;
  uint64_t device_bytes = 0;
  uint64_t inflight_bytes = uint64_t{96} << 20;  // between tiers at any moment
  uint32_t shelves = 0;  // that may be attached; what a shelf above it held is lost
  // The shelf on which a block of a corpus belongs, by its place in the chain; 0: in the folder.
  // Where that has no room or is away, the block lies in the folder. Empty: all do.
  std::function<uint32_t(const CorpusRecord& record, uint64_t position)> shelf_of;
  uint64_t pins_owner_bytes = 0;  // as in PinLimits
  uint64_t pins_total_bytes = 0;
  WriteGate::Listener on_write_state;  // told when the store becomes read-only, and back
  StoreObserver* observer = nullptr;   // told what comes, goes and breaks; may be null
};

// A sealed block to publish. The payload is copied; sections divide it evenly (one per layer), each
// with its own CRC32C.
struct BlockWrite {
  Digest digest;
  std::vector<TokenId> tokens;  // 1..block_tokens ids of this block
  std::span<const std::byte> payload;
  uint32_t sections = 1;  // REQUIRES: payload.size() % sections == 0
  // Payloads of its parts, one for each of CorpusRecord::parts; those that the record does not say
  // are kept are not written.
  std::vector<std::span<const std::byte>> parts = {};
  // Where the block was written already, and no payload here.
  std::optional<ShelvedBlock> shelved = std::nullopt;
};

struct TierUsage {
  std::string name;  // "host", "disk", and "device" where there is one
  uint64_t capacity_bytes = 0, used_bytes = 0, pinned_bytes = 0;
  uint64_t free_bytes = 0;
};

struct CorpusUsage {
  uint64_t stored_bytes = 0;  // payload bytes of its blocks, parts included
  uint64_t part_bytes = 0;    // of them, of parts
  uint64_t host_bytes = 0, disk_bytes = 0, device_bytes = 0;
};

// Where the blocks of one fetch came from.
struct FetchStats {
  uint64_t host_bytes = 0, disk_bytes = 0, device_bytes = 0;
  double seconds = 0;           // until the last block was there
  double waited_seconds = 0;    // of them, those that the caller waited
  std::vector<size_t> damaged;  // indices refused by their checksum, quarantined: recompute them
  std::vector<size_t> missing;  // indices that no tier holds
};

struct VerifyReport {
  uint64_t blocks = 0, bytes = 0;
  std::vector<Digest> damaged;  // quarantined by this call
  std::vector<Digest> missing;
};

struct EvictReport {
  uint64_t blocks = 0, bytes = 0;  // given back
  uint64_t shared_blocks = 0;      // left the corpus, but others have them too
};

// An open sidecar: what it held when it was opened, whatever becomes of it since. Any thread.
class SidecarReader {
 public:
  virtual ~SidecarReader() = default;
  virtual uint64_t bytes() const = 0;
  // Fills `bytes` from this offset on, checked. Aligned to pages it is read into directly.
  // kCorruption: damaged there; kInvalidArgument: it is not so long.
  virtual Status Read(uint64_t offset, std::span<std::byte> bytes) const = 0;
};

class BlockStore {
 public:
  static Result<std::unique_ptr<BlockStore>> Open(const BlockStoreOptions& options);
  virtual ~BlockStore() = default;

  // --- corpora; every call is one atomic, durable write batch

  // kAlreadyExists if the name is taken. Sets id, generation, and created_at if it is 0. Keeps the
  // token ids of the whole corpus for resume and repair.
  virtual Result<CorpusRecord> CreateCorpus(CorpusRecord record,
                                            std::span<const TokenId> tokens) = 0;
  virtual Result<CorpusRecord> GetCorpus(std::string_view name) const = 0;
  virtual std::vector<CorpusRecord> ListCorpora() const = 0;  // by name
  virtual Result<std::vector<TokenId>> CorpusTokens(std::string_view name) const = 0;
  // Writes the record if its generation is still the stored one (kAborted otherwise), and returns
  // it with the new generation. REQUIRES: the chain is unchanged or a prefix of it (blocks are
  // added by Publish only), and so are the parts; those of blocks that go, go with them.
  virtual Result<CorpusRecord> UpdateCorpus(const CorpusRecord& record) = 0;
  // As UpdateCorpus, and replaces the token ids (append).
  virtual Result<CorpusRecord> ReplaceTokens(const CorpusRecord& record,
                                             std::span<const TokenId> tokens) = 0;
  // Notes that the corpus was asked. Not synced, keeps the generation: losing it in a crash costs
  // nothing.
  virtual Status NoteUse(std::string_view name) = 0;
  // A corpus that was to replace another is not any more.
  virtual Status RenameCorpus(std::string_view from, std::string_view to) = 0;
  // Puts the ready corpus `from`, whose record.replaces is `to`, in the place of `to`: it gets that
  // name, pin, expiry, priority and time of making, and replaces nothing any more. What had the
  // name is called `previous` from now on, unpinned, of low priority, with the given expiry (Unix
  // ms; 0: never); a corpus already called so is removed. Ids stay, so leases, jobs and sidecars
  // do. RETURNS the corpus now called `to`. kNotFound; kFailedPrecondition: `from` is not ready or
  // not to replace `to`, or the corpus called `previous` is pinned; kResourceExhausted: the pin
  // does not fit at the new size. After an error everything is as it was.
  virtual Result<CorpusRecord> ReplaceCorpus(std::string_view from, std::string_view to,
                                             std::string_view previous,
                                             int64_t previous_expires_at_ms) = 0;
  // Drops the name and the references; blocks that no corpus names any more give their space back.
  virtual Status RemoveCorpus(std::string_view name) = 0;

  // --- blocks

  // How many leading digests of the chain, which starts at its root, are stored (not quarantined).
  // Of an exact corpus; others: StoredBlocks. No payload is read. Token ids are compared: a digest
  // stored with other tokens is kCorruption.
  virtual Result<size_t> LongestPrefix(std::span<const Digest> chain,
                                       std::span<const TokenId> tokens) const = 0;
  // Which blocks of a corpus are stored, whatever corpora have them and wherever they stand there:
  // for segmented corpora, whose documents share blocks and no prefix. digests: the first ones of
  // the chain; tokens: of its corpus. No payload is read. kCorruption: a digest is stored with
  // other token ids.
  virtual Result<std::vector<BlockPresence>> StoredBlocks(
      const CorpusChain& chain, std::span<const Digest> digests,
      std::span<const TokenId> tokens) const = 0;
  // Makes the blocks durable and appends their digests to record.chain in one publish. REQUIRES:
  // record.chain is the stored one. A block that is stored already is shared, not written again.
  // record.parts[].held: of which blocks parts are kept from now on, the new ones included; what it
  // was and is not any more goes with the same publish. Older blocks get no new parts.
  // Blocks also enter the host tier while it has room. kResourceExhausted: the disk cap or the disk
  // itself is full; nothing was published.
  virtual Result<CorpusRecord> Publish(const CorpusRecord& record,
                                       std::span<const BlockWrite> blocks) = 0;
  // Registers blocks already stored (LongestPrefix) as part of the corpus, without payload, and the
  // parts that record.parts says are kept from now on, which are stored, too. kNotFound: one of
  // them has gone since.
  virtual Result<CorpusRecord> AdoptBlocks(const CorpusRecord& record,
                                           std::span<const Digest> blocks) = 0;
  // Rewrites one quarantined block of a corpus under its digest.
  virtual Status Repair(const BlockWrite& block) = 0;
  // Leases the blocks in order, reading from disk what the host tier lacks, verifying every
  // checksum at that crossing. Damaged or missing ones come back invalid and are listed in stats.
  virtual Result<std::vector<BlockRef>> Fetch(std::span<const Digest> digests,
                                              FetchStats* stats) = 0;
  // The same without waiting: begins to read, sections in order. kResourceExhausted if the host
  // tier has no room for all of them.
  virtual Result<std::unique_ptr<BlockPrefetch>> Prefetch(std::span<const Digest> digests,
                                                          const PrefetchOptions& options) = 0;
  // Copies blocks of the corpus, leased in host memory, to the device tier, whose checksums must
  // agree. RETURNS the bytes that are there now. kInvalidArgument: there is no device;
  // kResourceExhausted, kDeviceError, kCancelled: what was copied until then stays.
  virtual Result<uint64_t> PromoteToDevice(std::span<const Digest> chain,
                                           std::span<const BlockRef> blocks,
                                           const std::stop_token& stop) = 0;

  // Leases those of the blocks that are on the device now, in order; the others come back without.
  virtual std::vector<DeviceRef> OnDevice(std::span<const Digest> digests) {
    return std::vector<DeviceRef>(digests.size());
  }

  // One block's payload, read past the host tier and checked; sections: as in BlockWrite.
  // kCorruption: damaged, and now quarantined; kNotFound: not stored.
  virtual Status ReadBlock(const Digest& digest, std::vector<std::byte>* payload,
                           uint32_t* sections) = 0;

  // --- shelves (block_shelf.h)

  // Puts a shelf in the place of the one of this number before. open: gets the extents that the
  // catalogue names there, with their bytes, gives all others back, and returns the shelf. RETURNS
  // its epoch. kInvalidArgument: there is no such number.
  using OpenShelf =
      std::function<Result<std::shared_ptr<BlockShelf>>(const std::map<uint64_t, uint64_t>& named)>;
  virtual Result<uint64_t> AttachShelf(uint32_t /*number*/, const OpenShelf& /*open*/) {
    return UnimplementedError("a store without shelves");
  }
  // What lies there is away from now on: reading it is kUnavailable.
  virtual void DetachShelf(uint32_t /*number*/) {}
  // Of stored blocks, in order: where they lie, as the catalogue says; of others nothing.
  virtual Result<std::vector<std::optional<BlockLocation>>> Locations(
      std::span<const Digest> /*digests*/) const {
    return UnimplementedError("a store without shelves");
  }
  // Those of these blocks that are away are computed again by whoever needs them, as if they were
  // damaged.
  virtual Status GiveUp(std::span<const Digest> /*digests*/) { return OkStatus(); }
  // Payload bytes that lie on each disk, by shelf (0: the folder), of a corpus.
  virtual Result<std::map<uint32_t, uint64_t>> BytesByShelf(const CorpusRecord& /*record*/) const {
    return UnimplementedError("a store without shelves");
  }
  // The same of what pins hold there.
  virtual Result<std::map<uint32_t, uint64_t>> PinnedByShelf() const {
    return UnimplementedError("a store without shelves");
  }

  // --- sidecars: data made of a corpus, such as an index, kept beside its blocks and gone with it.
  // Not covered by pins; whoever made one can make it again.

  // Replaces what the corpus of this id had of this kind (1 to 32 of a-z, 0-9 and _): whole and
  // durable when it returns. The parts are put one behind the other. kNotFound: there is no such
  // corpus; kResourceExhausted, kIoError: it does not fit or cannot be written, and the one before,
  // if any, is still there.
  virtual Status PutSidecarParts(uint64_t corpus_id, std::string_view kind,
                                 std::span<const std::span<const std::byte>> parts) = 0;
  // kNotFound; kCorruption: it is damaged.
  virtual Result<std::shared_ptr<const SidecarReader>> OpenSidecar(uint64_t corpus_id,
                                                                   std::string_view kind) const = 0;
  Status PutSidecar(uint64_t corpus_id, std::string_view kind, std::span<const std::byte> bytes) {
    return PutSidecarParts(corpus_id, kind, {&bytes, 1});
  }
  // All of it, in memory of its own. As OpenSidecar and Read.
  Result<std::vector<std::byte>> Sidecar(uint64_t corpus_id, std::string_view kind) const {
    ASSIGN_OR_RETURN(const auto reader, OpenSidecar(corpus_id, kind));
    std::vector<std::byte> bytes(reader->bytes());
    RETURN_IF_ERROR(reader->Read(0, bytes));
    return bytes;
  }

  // --- misses (miss_explain.h)

  // In order; reads the catalogue alone.
  virtual Result<std::vector<BlockPresence>> Presence(std::span<const Digest> digests) const = 0;
  // Every identity that corpora were made with.
  virtual std::vector<RootRecord> Roots() const = 0;
  MissCounters& misses() { return misses_; }

  // --- housekeeping

  // Reads every block of the corpus from disk. progress may be null; false from it cancels
  // (kCancelled).
  virtual Result<VerifyReport> Verify(
      std::string_view name,
      const std::function<bool(uint64_t done, uint64_t total)>& progress) = 0;
  // From the host tier: drops the corpus's unleased blocks. From the disk tier: drops all its
  // blocks that no other corpus shares; its tokens stay, the record goes to kEvicted, and a
  // prefill builds it again. kFailedPrecondition if the corpus is pinned. dry_run only counts.
  virtual Result<EvictReport> Evict(std::string_view name, TierKind from, bool dry_run) = 0;
  // Makes so many bytes of payload leave the tier, or all that may (UINT64_MAX), in the order of
  // the policy; fewer if pins, leases and prefills under way leave less. RETURNS what went, or with
  // dry_run what would. kInvalidArgument: there is no such tier.
  virtual Result<EvictPlan> EvictByPolicy(TierKind from, uint64_t bytes, bool dry_run) = 0;
  // Above the high watermark, on any disk: evicts down to the low one, as far as that is possible.
  // Does nothing unless evict_disk.
  virtual Status TrimDisk() = 0;
  // Evicts others by policy where so many bytes more of the corpus, written there by whoever keeps
  // it, would pass a shelf's high watermark. kResourceExhausted: they do not fit.
  virtual Status MakeRoomOnShelf(uint32_t /*number*/, uint64_t /*bytes*/,
                                 const CorpusRecord& /*record*/) {
    return UnimplementedError("a store without shelves");
  }
  virtual EvictionCounts evictions() const = 0;
  // What left the disk tier, when and why, oldest first; at most kEvictionNotesMax of them.
  virtual std::vector<EvictionNote> EvictionNotes() const = 0;
  virtual std::vector<TierUsage> Usage() const = 0;
  virtual CorpusUsage UsageOf(const CorpusRecord& record) const = 0;
  // Whether new blocks are taken, and the way back when they are not. Publish, Repair, CreateCorpus
  // and ReplaceTokens ask it themselves.
  virtual WriteGate& write_gate() = 0;
  // Who holds blocks in memory.
  virtual LeaseTable& leases() = 0;
  // Blocks in memory that are held outside any lease: none, while nothing is being read.
  virtual std::vector<Digest> HeldWithoutLease() const = 0;
  // One line per check, "ok: ..." or "warn: ..." or "error: ...", for `corpusctl doctor`.
  virtual std::vector<std::string> Diagnose() const = 0;

  // --- jobs: opaque records that survive a restart

  virtual Status PutJob(uint64_t id, std::string_view record) = 0;
  virtual std::vector<std::pair<uint64_t, std::string>> ListJobs() const = 0;
  virtual Status RemoveJob(uint64_t id) = 0;

 private:
  MissCounters misses_;
};

}  // namespace corpusd
