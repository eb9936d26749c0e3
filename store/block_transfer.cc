// The block side of DurableBlockStore: publishing, fetching, verifying, evicting.
#include <algorithm>
#include <chrono>
#include <thread>

#include "store/base/units.h"
#include "store/durable_block_store.h"

namespace corpusd {
namespace {

// Enough readers to reach a disk's bandwidth with blocks of a few MB; more only fight for two
// cores.
constexpr size_t kReadersMax = 4;

}  // namespace

struct DurableBlockStore::Missing {
  size_t index;
  Digest digest;
  ChainEntry entry;
  std::shared_ptr<HostBlock> block;
  Status status;
};

Status DurableBlockStore::CheckDiskRoom(uint64_t needed_bytes) const {
  const uint64_t used = payload_->PhysicalBytes() + catalog_->PhysicalBytes();
  if (used + needed_bytes <= options_.disk_bytes) return OkStatus();
  return ResourceExhaustedError("the disk tier is full: " + FormatBytes(used) + " of " +
                                FormatBytes(options_.disk_bytes) + " are used, " +
                                FormatBytes(needed_bytes) +
                                " more are needed: raise --disk-bytes or remove a corpus");
}

Result<size_t> DurableBlockStore::LongestPrefix(std::span<const Digest> chain,
                                                std::span<const TokenId> tokens) const {
  ASSIGN_OR_RETURN(const auto entries, catalog_->Entries(chain));
  size_t first_token = 0;
  for (size_t i = 0; i < chain.size(); ++i) {
    if (entries[i].references == 0 || entries[i].quarantined) return i;
    const auto stored = catalog_->BlockTokens(chain[i]);
    if (!stored.ok()) return i;
    if (first_token + stored->size() > tokens.size() ||
        !std::equal(stored->begin(), stored->end(),
                    tokens.begin() + static_cast<ptrdiff_t>(first_token))) {
      return CorruptionError("block " + chain[i].Hex().substr(0, 12) +
                             " is stored with other token ids than its digest says");
    }
    first_token += stored->size();
  }
  return chain.size();
}

Result<CorpusRecord> DurableBlockStore::Publish(const CorpusRecord& record,
                                                std::span<const BlockWrite> blocks) {
  std::vector<Digest> digests;
  uint64_t tokens = 0;
  uint64_t bytes = 0;
  for (const BlockWrite& block : blocks) {
    digests.push_back(block.digest);
    tokens += block.tokens.size();
    bytes += block.payload.size();
  }
  ASSIGN_OR_RETURN(auto entries, catalog_->Entries(digests));
  std::vector<const BlockWrite*> fresh;
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (entries[i].references == 0 || entries[i].quarantined) fresh.push_back(&blocks[i]);
  }
  uint64_t extent = 0;
  if (!fresh.empty()) {
    RETURN_IF_ERROR(CheckDiskRoom(bytes));
    ASSIGN_OR_RETURN(extent, payload_->WriteExtent(fresh));
  }
  const auto commit = [&]() -> Result<CorpusRecord> {
    const std::lock_guard lock(mutex_);
    ASSIGN_OR_RETURN(const CorpusRecord* const current, CurrentLocked(record));
    const CorpusRecord old = *current;
    ASSIGN_OR_RETURN(entries, catalog_->Entries(digests));  // again: others publish too
    Catalog::Change change;
    for (size_t i = 0; i < blocks.size(); ++i) {
      const auto written = std::find(fresh.begin(), fresh.end(), &blocks[i]);
      ChainEntry& entry = entries[i];
      if (written != fresh.end() && (entry.references == 0 || entry.quarantined)) {
        entry.location = {extent, static_cast<uint32_t>(written - fresh.begin())};
        entry.payload_bytes = blocks[i].payload.size();
        entry.tokens = static_cast<uint32_t>(blocks[i].tokens.size());
        entry.sections = blocks[i].sections;
        entry.quarantined = false;
        change.PutBlockTokens(blocks[i].digest, blocks[i].tokens);
      } else if (entry.references == 0) {
        return Status(StatusCode::kAborted, "a shared block was removed meanwhile: retry");
      }
      ++entry.references;
      change.PutEntry(blocks[i].digest, entry);
    }
    CorpusRecord grown = record;
    grown.chain.insert(grown.chain.end(), digests.begin(), digests.end());
    grown.durable_tokens += tokens;
    return CommitRecordLocked(std::move(grown), old, &change);
  };
  auto published = commit();
  if (!published.ok()) {
    // Nothing names the extent; what cannot be dropped now is dropped at the next open.
    if (!fresh.empty()) (void)payload_->DropExtent(extent);
    return published;
  }
  KeepInHostTier(blocks, *published);
  if (published->pin && published->chain.size() == blocks.size()) RefreshPins();
  return published;
}

void DurableBlockStore::KeepInHostTier(std::span<const BlockWrite> blocks,
                                       const CorpusRecord& record) {
  const size_t first = record.chain.size() - blocks.size();
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (host_.Contains(blocks[i].digest)) continue;
    auto block = host_.Reserve(blocks[i].digest, static_cast<uint32_t>(blocks[i].tokens.size()),
                               blocks[i].payload.size());
    if (!block.ok()) return;  // it is on disk; the host tier is only faster
    std::copy(blocks[i].payload.begin(), blocks[i].payload.end(), (*block)->bytes().begin());
    (void)host_.Insert(std::move(*block), record.chain.front(), first + i);
  }
}

Result<CorpusRecord> DurableBlockStore::AdoptBlocks(const CorpusRecord& record,
                                                    std::span<const Digest> blocks) {
  const std::lock_guard lock(mutex_);
  ASSIGN_OR_RETURN(const CorpusRecord* const current, CurrentLocked(record));
  const CorpusRecord old = *current;
  ASSIGN_OR_RETURN(auto entries, catalog_->Entries(blocks));
  Catalog::Change change;
  CorpusRecord grown = record;
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (entries[i].references == 0 || entries[i].quarantined) {
      return Status(StatusCode::kAborted,
                    "block " + blocks[i].Hex().substr(0, 12) + " was removed meanwhile: retry");
    }
    ++entries[i].references;
    change.PutEntry(blocks[i], entries[i]);
    grown.chain.push_back(blocks[i]);
    grown.durable_tokens += entries[i].tokens;
  }
  return CommitRecordLocked(std::move(grown), old, &change);
}

Status DurableBlockStore::Repair(const BlockWrite& block) {
  RETURN_IF_ERROR(CheckDiskRoom(block.payload.size()));
  const BlockWrite* const one = &block;
  ASSIGN_OR_RETURN(const uint64_t extent, payload_->WriteExtent({&one, 1}));
  const std::lock_guard lock(mutex_);
  auto entry = catalog_->Entry(block.digest);
  if (!entry.ok()) {
    (void)payload_->DropExtent(extent);
    return entry.status().WithContext("repairing block " + block.digest.Hex().substr(0, 12));
  }
  entry->location = {extent, 0};
  entry->payload_bytes = block.payload.size();
  entry->tokens = static_cast<uint32_t>(block.tokens.size());
  entry->sections = block.sections;
  entry->quarantined = false;
  Catalog::Change change;
  change.PutEntry(block.digest, *entry);
  return CommitLocked(change, /*sync=*/true);
}

void DurableBlockStore::Quarantine(const Digest& digest) {
  const std::lock_guard lock(mutex_);
  auto entry = catalog_->Entry(digest);
  if (!entry.ok() || entry->quarantined) return;
  entry->quarantined = true;
  Catalog::Change change;
  change.PutEntry(digest, *entry);
  // Unwritten, the mark is made again by the next read of the block.
  (void)CommitLocked(change, /*sync=*/true);
}

void DurableBlockStore::ReadOne(Missing& missing) {
  if (missing.entry.references == 0) {
    missing.status = NotFoundError("block " + missing.digest.Hex().substr(0, 12));
    return;
  }
  if (missing.entry.quarantined) {
    missing.status =
        CorruptionError("block " + missing.digest.Hex().substr(0, 12) + " is quarantined");
    return;
  }
  missing.status = payload_->Read(missing.entry.location, missing.digest, missing.entry.tokens,
                                  missing.block->bytes());
}

Status DurableBlockStore::ReadMissing(std::span<Missing> missing) {
  for (Missing& one : missing) {
    if (one.entry.references == 0) continue;
    auto block = host_.Reserve(one.digest, one.entry.tokens, one.entry.payload_bytes);
    if (!block.ok()) return block.status();
    one.block = std::move(*block);
  }
  const size_t readers = std::min(kReadersMax, missing.size());
  std::atomic<size_t> next{0};
  const auto read = [&] {
    for (size_t i = next.fetch_add(1); i < missing.size(); i = next.fetch_add(1)) {
      ReadOne(missing[i]);
    }
  };
  std::vector<std::jthread> threads;
  for (size_t t = 1; t < readers; ++t) threads.emplace_back(read);
  read();
  threads.clear();  // joins
  return OkStatus();
}

Result<std::vector<BlockRef>> DurableBlockStore::Fetch(std::span<const Digest> digests,
                                                       FetchStats* stats) {
  const auto start = std::chrono::steady_clock::now();
  std::vector<BlockRef> refs(digests.size());
  if (digests.empty()) return refs;
  const Digest& group = digests.front();
  ASSIGN_OR_RETURN(const auto entries, catalog_->Entries(digests));
  std::vector<Missing> missing;
  for (size_t i = 0; i < digests.size(); ++i) {
    refs[i] = host_.Find(digests[i], group);
    if (refs[i].valid()) {
      stats->host_bytes += refs[i].bytes().size();
    } else {
      missing.push_back({i, digests[i], entries[i], nullptr, OkStatus()});
    }
  }
  RETURN_IF_ERROR(ReadMissing(missing));
  Status other;
  for (Missing& one : missing) {
    if (one.status.ok()) {
      stats->disk_bytes += one.entry.payload_bytes;
      refs[one.index] = host_.Insert(std::move(one.block), group, one.index);
    } else if (one.status.code() == StatusCode::kNotFound && one.entry.references == 0) {
      stats->missing.push_back(one.index);
    } else if (one.status.code() == StatusCode::kCorruption ||
               one.status.code() == StatusCode::kNotFound) {
      Quarantine(one.digest);
      stats->damaged.push_back(one.index);
    } else {
      other = one.status;
    }
  }
  RETURN_IF_ERROR(other);
  stats->seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return refs;
}

Result<VerifyReport> DurableBlockStore::Verify(
    std::string_view name, const std::function<bool(uint64_t done, uint64_t total)>& progress) {
  ASSIGN_OR_RETURN(const CorpusRecord record, GetCorpus(name));
  ASSIGN_OR_RETURN(const auto entries, catalog_->Entries(record.chain));
  VerifyReport report;
  std::vector<std::byte> buffer;
  for (size_t i = 0; i < record.chain.size(); ++i) {
    ++report.blocks;
    report.bytes += entries[i].payload_bytes;
    if (entries[i].references == 0) {
      report.missing.push_back(record.chain[i]);
    } else {
      buffer.resize(entries[i].payload_bytes);
      const Status status =
          payload_->Read(entries[i].location, record.chain[i], entries[i].tokens, buffer);
      if (status.code() == StatusCode::kCorruption || status.code() == StatusCode::kNotFound) {
        Quarantine(record.chain[i]);
        host_.Erase(record.chain[i]);
        report.damaged.push_back(record.chain[i]);
      } else if (!status.ok()) {
        return status;
      }
    }
    if (!progress(i + 1, record.chain.size())) {
      return CancelledError("verifying corpus '" + record.name + "' was cancelled");
    }
  }
  return report;
}

Result<EvictReport> DurableBlockStore::Evict(std::string_view name, TierKind from, bool dry_run) {
  ASSIGN_OR_RETURN(const CorpusRecord record, GetCorpus(name));
  if (from == TierKind::kDevice) {
    return InvalidArgumentError("this daemon has no device tier to evict from");
  }
  if (record.pin &&
      (from == TierKind::kDisk || record.pin->tier == static_cast<uint8_t>(TierKind::kHost))) {
    return FailedPreconditionError("corpus '" + record.name + "' is pinned: unpin it first");
  }
  EvictReport report;
  if (from == TierKind::kHost) {
    std::tie(report.blocks, report.bytes) = host_.Drop(record.chain, dry_run);
    return report;
  }
  ASSIGN_OR_RETURN(const auto entries, catalog_->Entries(record.chain));
  for (const ChainEntry& entry : entries) {
    if (entry.references != 1) continue;  // shared blocks stay for the others
    ++report.blocks;
    report.bytes += entry.payload_bytes;
  }
  if (dry_run) return report;
  CorpusRecord emptied = record;
  emptied.chain.clear();
  emptied.durable_tokens = 0;
  emptied.state = CorpusState::kCancelled;
  ASSIGN_OR_RETURN(emptied, UpdateCorpus(emptied));
  return report;
}

}  // namespace corpusd
