// What writes blocks in a DurableBlockStore: publishing, repairing, giving space back.
#include <sys/statvfs.h>

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "store/base/fault_point.h"
#include "store/base/units.h"
#include "store/block_header.h"
#include "store/durable_block_store.h"
#include "store/store_observer.h"

namespace corpusd {
namespace {

// Header and padding of one stored block, rounded up.
constexpr uint64_t kBlockOverheadBytes = 2 * kDirectPage;
// One publish's share of the catalogue, and the files that it always has.
constexpr uint64_t kCatalogGrowthBytes = uint64_t{1} << 20;
// Left free on the disk, so that the catalogue can still write what removes a corpus.
constexpr uint64_t kDiskReserveBytes = uint64_t{16} << 20;

constexpr int kRoomAttempts = 4;
// A publish uses so many of the last blocks, and the whole chain once in so many: what it costs
// must not grow with the chain.
constexpr size_t kUsedBlocks = 1024;

uint64_t PayloadBytes(const BlockWrite& block) {
  return block.shelved ? block.shelved->payload_bytes : block.payload.size();
}

std::string ShortName(const Digest& digest) { return "block " + digest.Hex().substr(0, 12); }

// Runs of the blocks whose payload is no more than that together, or of one block.
std::vector<std::vector<const BlockWrite*>> InPieces(std::span<const BlockWrite* const> blocks,
                                                     uint64_t bytes_max) {
  std::vector<std::vector<const BlockWrite*>> pieces;
  uint64_t bytes = 0;
  for (const BlockWrite* block : blocks) {
    if (pieces.empty() || block->payload.size() > bytes_max - bytes) {
      pieces.emplace_back();
      bytes = 0;
    }
    pieces.back().push_back(block);
    bytes += std::min<uint64_t>(block->payload.size(), bytes_max - bytes);
  }
  return pieces;
}

// Adds the parts that the grown corpus keeps of its blocks from `first` on, and where these stand.
Status AppendPartWrites(const CorpusRecord& grown, uint64_t first,
                        std::span<const BlockWrite> new_blocks, std::vector<BlockWrite>* writes,
                        std::vector<uint64_t>* positions) {
  if (!PartsFit(grown.parts, grown.chain.size())) {
    return InvalidArgumentError("the parts of corpus '" + grown.name + "' lie outside its blocks");
  }
  for (const HeldPart& held : HeldParts(grown)) {
    if (held.block < first) continue;
    const BlockWrite& block = new_blocks[held.block - first];
    if (held.part >= block.parts.size()) {
      return InvalidArgumentError(ShortName(block.digest) + " comes without its part " +
                                  grown.parts[held.part].kind);
    }
    writes->push_back(
        {held.digest, block.tokens, block.parts[held.part], grown.parts[held.part].sections});
    positions->push_back(held.block);
  }
  return OkStatus();
}

}  // namespace

uint64_t DurableBlockStore::FreeDiskBytes() const {
  struct statvfs info {};
  if (statvfs(options_.data_dir.c_str(), &info) != 0) return 0;
  const uint64_t free_bytes = uint64_t{info.f_bavail} * info.f_frsize;
  return free_bytes - std::min(free_bytes, kDiskReserveBytes);
}

uint64_t DurableBlockStore::DiskUsedBytes() const {
  return payload_->PhysicalBytes() + sidecars_->PhysicalBytes() + catalog_->PhysicalBytes();
}

uint64_t DurableBlockStore::DiskRoomBytes() const {
  // The catalogue grows without asking: by its log, which stays until tables are written from it,
  // and by compaction, which has its input and its output on disk at once.
  const uint64_t growth_bytes = catalog_->PhysicalBytes() + kCatalogGrowthBytes;
  return options_.disk_bytes - std::min(growth_bytes, options_.disk_bytes / 2);
}

Status DurableBlockStore::CheckCap(uint64_t needed_bytes) const {
  const uint64_t used = DiskUsedBytes();
  if (used + needed_bytes <= options_.disk_bytes) return OkStatus();
  return ResourceExhaustedError("the disk tier is full: " + FormatBytes(used) + " of " +
                                FormatBytes(options_.disk_bytes) + " are used, " +
                                FormatBytes(needed_bytes) +
                                " more are needed: raise --disk-bytes or remove a corpus");
}

Status DurableBlockStore::CheckDiskRoom(uint64_t needed_bytes) {
  RETURN_IF_ERROR(CheckCap(needed_bytes + options_.disk_bytes - DiskRoomBytes()));
  if (const uint64_t free_bytes = FreeDiskBytes(); needed_bytes > free_bytes) {
    return gate_.Observe(ResourceExhaustedError("the disk under " + options_.data_dir +
                                                " is full: " + FormatBytes(free_bytes) +
                                                " can be used, " + FormatBytes(needed_bytes) +
                                                " more are needed: free space or remove a corpus"),
                         needed_bytes);
  }
  return OkStatus();
}

Status DurableBlockStore::ProbeDisk(uint64_t needed_bytes) const {
  RETURN_IF_ERROR(FaultPoint("payload.write"));
  RETURN_IF_ERROR(FaultPoint("catalog.write"));
  if (const uint64_t free_bytes = FreeDiskBytes(); needed_bytes > free_bytes) {
    return ResourceExhaustedError(FormatBytes(free_bytes) + " of the disk can be used");
  }
  return catalog_->ProbeWrites();
}

Status DurableBlockStore::CheckBlocks(std::span<const BlockWrite> blocks) {
  for (const BlockWrite& block : blocks) {
    const uint64_t bytes = PayloadBytes(block);
    if (bytes == 0 || bytes > kMaxPayloadBytes || block.sections == 0 ||
        block.sections > kMaxSections || bytes % block.sections != 0) {
      return InvalidArgumentError(ShortName(block.digest) +
                                  " cannot be stored: " + std::to_string(bytes) + " bytes in " +
                                  std::to_string(block.sections) + " sections");
    }
    if (block.tokens.empty() || block.tokens.size() > kTokensPerChunk) {
      return InvalidArgumentError(ShortName(block.digest) + " cannot be stored: it has " +
                                  std::to_string(block.tokens.size()) + " tokens");
    }
  }
  return OkStatus();
}

Result<DurableBlockStore::FreshExtent> DurableBlockStore::WritePayload(
    std::vector<const BlockWrite*> blocks, const CorpusRecord& record, uint32_t shelf) {
  uint64_t needed_bytes = 0;
  for (const BlockWrite* block : blocks) {
    needed_bytes += block->payload.size() + kBlockOverheadBytes;
  }
  FreshExtent fresh;
  fresh.blocks = std::move(blocks);
  fresh.epoch = ShelfEpoch(shelf);
  // What an eviction makes free may be another's, or not be free yet while its extent has blocks of
  // others: then once more.
  for (int attempt = 1;; ++attempt) {
    const bool again = options_.evict_disk && attempt < kRoomAttempts;
    Status room = MakeRoom(needed_bytes, record, record.name, shelf);
    Result<PayloadStore::Extent> extent = InternalError("not written");
    if (shelf != 0) {
      if (room.ok()) extent = payload_->WriteExtent(fresh.blocks, shelf);
      if (room.ok()) room = extent.status();
      const bool full = room.code() == StatusCode::kResourceExhausted;
      if (full && again && extent.status().code() == room.code()) continue;
      if (full) return WritePayload(std::move(fresh.blocks), record, 0);
      RETURN_IF_ERROR(room);
    } else {
      RETURN_IF_ERROR(room);
      const std::lock_guard lock(payload_mutex_);
      room = CheckDiskRoom(needed_bytes);
      if (!room.ok() && again) continue;
      RETURN_IF_ERROR(room);
      extent = payload_->WriteExtent(fresh.blocks);
      if (!extent.ok()) return gate_.Observe(extent.status(), needed_bytes);
    }
    fresh.extent = *std::move(extent);
    return fresh;
  }
}

void DurableBlockStore::DiscardExtentLocked(uint64_t extent) {
  // Not at once: a commit that failed may still be in the log, and come back until another one has
  // succeeded.
  orphans_.push_back(extent);
}

Status DurableBlockStore::ReferenceLocked(const CorpusRecord& record,
                                          std::span<const BlockWrite> blocks,
                                          std::span<const uint64_t> positions,
                                          std::span<const FreshExtent> fresh,
                                          Catalog::Change* change) {
  std::unordered_map<const BlockWrite*, BlockLocation> written;
  for (const FreshExtent& some : fresh) {
    for (size_t i = 0; i < some.blocks.size(); ++i) {
      written[some.blocks[i]] = some.extent.locations[i];
    }
  }
  std::vector<Digest> digests;
  for (const BlockWrite& block : blocks) digests.push_back(block.digest);
  ASSIGN_OR_RETURN(auto entries, catalog_->Entries(digests));
  std::unordered_map<Digest, ChainEntry, DigestHash> changed;
  for (size_t i = 0; i < blocks.size(); ++i) {
    const BlockWrite& block = blocks[i];
    ChainEntry& entry = changed.try_emplace(block.digest, entries[i]).first->second;
    const auto here = written.find(&block);
    if (here != written.end() && (entry.references == 0 || entry.quarantined)) {
      entry.location = here->second;
      entry.place = {record.chain.empty() ? digests.front() : record.chain.front(), positions[i]};
      entry.payload_bytes = PayloadBytes(block);
      entry.tokens = static_cast<uint32_t>(block.tokens.size());
      entry.sections = block.sections;
      entry.quarantined = false;
      change->PutBlockTokens(block.digest, block.tokens);
    } else if (entry.references == 0 || entry.quarantined) {
      return Status(StatusCode::kAborted,
                    ShortName(block.digest) + ", shared until now, was removed: retry");
    }
    ++entry.references;
  }
  for (const auto& [digest, entry] : changed) change->PutEntry(digest, entry);
  return OkStatus();
}

// A block that lies on a shelf, with those of its extent.
void DurableBlockStore::AddShelved(const BlockWrite& block, std::vector<FreshExtent>* fresh) {
  const ShelvedBlock& shelved = *block.shelved;
  const uint64_t number = OnShelf(shelved.shelf, shelved.location.extent);
  auto extent = std::find_if(fresh->begin(), fresh->end(),
                             [&](const FreshExtent& f) { return f.extent.number == number; });
  if (extent == fresh->end()) {
    fresh->push_back(FreshExtent{{}, {number, shelved.extent_bytes, {}}});
    extent = std::prev(fresh->end());
  }
  extent->blocks.push_back(&block);
  extent->extent.locations.push_back({number, shelved.location.ordinal});
  extent->epoch = shelved.epoch;
}

void DurableBlockStore::DiscardLocked(std::span<const FreshExtent> fresh, bool unnamed) {
  for (const FreshExtent& some : fresh) {
    if (ShelfOf(some.extent.number) == 0) {
      if (catalog_->live_bytes().contains(some.extent.number)) continue;
      DiscardExtentLocked(some.extent.number);
    } else if (unnamed && !some.blocks.front()->shelved && CheckShelvesLocked({&some, 1}).ok()) {
      // Now or never: a shelf that was attached anew has swept it, and given the number to another.
      (void)payload_->DropExtents({&some.extent.number, 1});
    }
  }
}

Status DurableBlockStore::WriteFresh(std::span<const BlockWrite> blocks, size_t chain_blocks,
                                     std::span<const uint64_t> positions,
                                     const CorpusRecord& record, std::vector<FreshExtent>* fresh) {
  std::vector<Digest> digests;
  for (const BlockWrite& block : blocks) digests.push_back(block.digest);
  ASSIGN_OR_RETURN(const auto entries, catalog_->Entries(digests));
  std::map<std::pair<bool, uint32_t>, std::vector<const BlockWrite*>> dealt;  // part, shelf
  std::unordered_set<Digest, DigestHash> met;  // equal documents have equal blocks
  for (size_t i = 0; i < blocks.size(); ++i) {
    const bool here = entries[i].references > 0 && !entries[i].quarantined;
    if (here || !met.insert(digests[i]).second) continue;
    if (blocks[i].shelved) {
      AddShelved(blocks[i], fresh);
    } else {
      dealt[{i >= chain_blocks, ShelfFor(record, positions[i])}].push_back(&blocks[i]);
    }
  }
  for (const auto& [where, written] : dealt) {
    for (auto& piece : InPieces(written, where.second == 0 ? UINT64_MAX : kShelfWriteBytes)) {
      auto extent = WritePayload(std::move(piece), record, where.second);
      if (!extent.ok()) {
        const std::lock_guard lock(mutex_);
        DiscardLocked(*fresh, /*unnamed=*/true);
        return extent.status();
      }
      fresh->push_back(*std::move(extent));
    }
  }
  return OkStatus();
}

Result<CorpusRecord> DurableBlockStore::Publish(const CorpusRecord& record,
                                                std::span<const BlockWrite> new_blocks) {
  CorpusRecord grown = record;
  std::vector<BlockWrite> blocks(new_blocks.begin(), new_blocks.end());
  for (const BlockWrite& block : new_blocks) {
    grown.chain.push_back(block.digest);
    grown.durable_tokens += block.tokens.size();
  }
  std::vector<uint64_t> positions;
  for (size_t i = 0; i < new_blocks.size(); ++i) positions.push_back(record.chain.size() + i);
  RETURN_IF_ERROR(AppendPartWrites(grown, record.chain.size(), new_blocks, &blocks, &positions));
  RETURN_IF_ERROR(CheckBlocks(blocks));
  RETURN_IF_ERROR(gate_.Admit("storing blocks of corpus '" + record.name + "'"));
  std::vector<FreshExtent> fresh;
  RETURN_IF_ERROR(WriteFresh(blocks, new_blocks.size(), positions, record, &fresh));
  const auto commit = [&]() -> Result<CorpusRecord> {
    ASSIGN_OR_RETURN(const CorpusRecord* const current, CurrentLocked(record));
    const CorpusRecord old = *current;
    CHECK(record.chain == old.chain) << "Publish appends to the stored chain";
    RETURN_IF_ERROR(CheckShelvesLocked(fresh));
    if (PartsGained(old, grown).size() != blocks.size() - new_blocks.size()) {
      return InvalidArgumentError("corpus '" + record.name + "' would keep parts of older blocks");
    }
    Catalog::Change change;
    for (const FreshExtent& some : fresh) change.PutExtent(some.extent.number, some.extent.bytes);
    RETURN_IF_ERROR(ReferenceLocked(record, blocks, positions, fresh, &change));
    return CommitRecordLocked(std::move(grown), old, &change);
  };
  Result<CorpusRecord> published = InternalError("not committed");
  {
    const std::lock_guard lock(mutex_);
    published = commit();
    for (const FreshExtent& some : fresh) {
      if (!published.ok()) break;
      disk_policy_.Enter(some.extent.bytes);
      // Others published the same blocks meanwhile, and theirs are shared.
      if (!catalog_->live_bytes().contains(some.extent.number)) {
        DiscardExtentLocked(some.extent.number);
      }
    }
    // kAborted: what the change was based on had changed, and nothing was committed.
    const bool unnamed = published.status().code() == StatusCode::kAborted;
    if (!published.ok()) DiscardLocked(fresh, unnamed);
  }
  if (!published.ok()) return published;
  if (options_.observer != nullptr && !fresh.empty()) {
    uint64_t count = 0, bytes = 0;
    for (const FreshExtent& some : fresh) {
      count += some.blocks.size();
      for (const BlockWrite* block : some.blocks) bytes += PayloadBytes(*block);
    }
    options_.observer->OnPublished(count, bytes);
  }
  KeepInHostTier(blocks, positions, blocks.size() - new_blocks.size(), *published);
  return published;
}

void DurableBlockStore::KeepInHostTier(std::span<const BlockWrite> blocks,
                                       std::span<const uint64_t> positions, size_t parts,
                                       const CorpusRecord& record) {
  const size_t size = record.chain.size();
  const size_t first = size - (blocks.size() - parts);
  const bool whole = first / kUsedBlocks != size / kUsedBlocks;
  const size_t used = whole ? 0 : size - std::min(size, kUsedBlocks);
  host_.NoteUse(std::span(record.chain).subspan(used), /*correlated_ms=*/60'000, used);
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (blocks[i].shelved || host_.Contains(blocks[i].digest)) continue;
    const auto block =
        host_.ReserveFree({blocks[i].digest, static_cast<uint32_t>(blocks[i].tokens.size()),
                           blocks[i].payload.size()});
    if (block == nullptr) return;  // it is on disk; the host tier is only faster
    std::copy(blocks[i].payload.begin(), blocks[i].payload.end(), block->bytes().begin());
    (void)host_.Insert(block, {record.chain.front(), positions[i]});
  }
}

Result<CorpusRecord> DurableBlockStore::AdoptBlocks(const CorpusRecord& record,
                                                    std::span<const Digest> blocks) {
  const std::lock_guard lock(mutex_);
  ASSIGN_OR_RETURN(const CorpusRecord* const current, CurrentLocked(record));
  const CorpusRecord old = *current;
  CHECK(record.chain == old.chain) << "AdoptBlocks appends to the stored chain";
  ASSIGN_OR_RETURN(const auto entries, catalog_->Entries(blocks));
  Catalog::Change change;
  CorpusRecord grown = record;
  std::unordered_map<Digest, ChainEntry, DigestHash> changed;
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (entries[i].references == 0 || entries[i].quarantined) {
      return NotFoundError(ShortName(blocks[i]) + " was removed meanwhile");
    }
    ++changed.try_emplace(blocks[i], entries[i]).first->second.references;
    grown.durable_tokens += entries[i].tokens;
  }
  grown.chain.append(blocks.begin(), blocks.end());
  const auto known = PartDigests(old);
  const std::unordered_set<Digest, DigestHash> kept(known.begin(), known.end());
  for (const Digest& part : PartDigests(grown)) {
    if (kept.contains(part)) continue;
    const auto entry = catalog_->Entry(part);
    if (entry.status().code() == StatusCode::kNotFound || (entry.ok() && entry->quarantined)) {
      return NotFoundError(ShortName(part) + " was removed meanwhile");
    }
    RETURN_IF_ERROR(entry.status());
    ++changed.try_emplace(part, *entry).first->second.references;
  }
  for (const auto& [digest, entry] : changed) change.PutEntry(digest, entry);
  return CommitRecordLocked(std::move(grown), old, &change);
}

Status DurableBlockStore::Repair(const BlockWrite& block) {
  RETURN_IF_ERROR(CheckBlocks({&block, 1}));
  RETURN_IF_ERROR(gate_.Admit("repairing " + ShortName(block.digest)));
  const std::string what = "repairing " + ShortName(block.digest);
  ASSIGN_OR_RETURN(const auto stored, catalog_->BlockTokens({&block.digest, 1}));
  if (stored.front().empty()) return NotFoundError(what + ": no corpus names it");
  if (stored.front() != block.tokens) {
    return InvalidArgumentError(what + ": it is of other tokens than the ones given");
  }
  // Where it was, if that disk is there.
  ASSIGN_OR_RETURN(const ChainEntry was, catalog_->Entry(block.digest));
  uint32_t shelf = ShelfOf(was.location.extent);
  if (shelf > options_.shelves || (shelf != 0 && !payload_->HasShelf(shelf))) {
    shelf = ShelfFor({}, was.place.position);
  }
  ASSIGN_OR_RETURN(const FreshExtent fresh, WritePayload({&block}, {}, shelf));
  const PayloadStore::Extent& extent = fresh.extent;
  const std::lock_guard lock(mutex_);
  const auto commit = [&]() -> Status {
    RETURN_IF_ERROR(CheckShelvesLocked({&fresh, 1}));
    ASSIGN_OR_RETURN(ChainEntry entry, catalog_->Entry(block.digest));
    entry.location = extent.locations.front();
    entry.payload_bytes = block.payload.size();
    entry.sections = block.sections;
    entry.quarantined = false;
    Catalog::Change change;
    change.PutExtent(extent.number, extent.bytes);
    change.PutEntry(block.digest, entry);
    return CommitLocked(change, /*sync=*/true);
  };
  const Status committed = commit();
  if (!committed.ok()) DiscardLocked({&fresh, 1}, /*unnamed=*/false);
  return committed.WithContext(what);
}

void DurableBlockStore::Quarantine(const Digest& digest, const BlockLocation& location) {
  const std::lock_guard lock(mutex_);
  auto entry = catalog_->Entry(digest);
  if (!entry.ok() || entry->quarantined || entry->location != location) return;
  entry->quarantined = true;
  if (options_.observer != nullptr) options_.observer->OnDamaged(TierKind::kDisk);
  Catalog::Change change;
  change.PutEntry(digest, *entry);
  // Unwritten, the mark is made again by the next read of the block.
  (void)CommitLocked(change, /*sync=*/true);
}

void DurableBlockStore::ReclaimSpace() {
  std::set<uint64_t> sparse;
  auto extents = payload_->Extents();
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [extent, bytes] : catalog_->NamedExtents()) {
      if (ShelfOf(extent) != 0 && payload_->HasShelf(ShelfOf(extent))) extents[extent] = bytes;
    }
    for (const auto& [extent, live_bytes] : catalog_->live_bytes()) {
      const auto file = extents.find(extent);
      if (file != extents.end() && live_bytes * 2 < file->second) sparse.insert(extent);
    }
  }
  if (sparse.empty()) return;
  const auto entries = catalog_->EntriesIn(sparse);
  if (!entries.ok()) return;  // space is given back with the next removal
  for (const auto& [extent, blocks] : *entries) RewriteExtent(blocks);
}

void DurableBlockStore::RewriteExtent(const Catalog::DigestEntries& entries) {
  std::vector<StoredBlock> blocks;
  uint64_t needed_bytes = 0;
  const uint32_t shelf = ShelfOf(entries.front().second.location.extent);
  FreshExtent fresh;
  fresh.epoch = ShelfEpoch(shelf);
  for (const auto& [digest, entry] : entries) {
    if (entry.quarantined) return;  // goes when it is repaired
    blocks.push_back({entry.location, digest, entry.tokens, entry.sections, entry.payload_bytes});
    needed_bytes += entry.payload_bytes + kBlockOverheadBytes;
  }
  Result<PayloadStore::Extent> extent = InternalError("not written");
  if (shelf != 0) {  // which sees to its cap itself
    extent = payload_->CopyToNewExtent(blocks);
  } else {
    const std::lock_guard lock(payload_mutex_);
    if (!CheckDiskRoom(needed_bytes).ok()) return;
    extent = payload_->CopyToNewExtent(blocks);
  }
  if (!extent.ok()) return;  // a damaged block: found and repaired when it is next read
  fresh.extent = *extent;
  const std::lock_guard lock(mutex_);
  if (!CheckShelvesLocked({&fresh, 1}).ok()) return;
  Catalog::Change change;
  change.PutExtent(extent->number, extent->bytes);
  for (size_t i = 0; i < entries.size(); ++i) {
    auto now = catalog_->Entry(entries[i].first);
    if (!now.ok() || now->location != entries[i].second.location) continue;
    now->location = extent->locations[i];
    change.PutEntry(entries[i].first, *now);
  }
  (void)CommitLocked(change, /*sync=*/true);
  if (!catalog_->live_bytes().contains(extent->number)) DiscardExtentLocked(extent->number);
}

}  // namespace corpusd
