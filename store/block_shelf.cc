// What of a DurableBlockStore lies on shelves: attaching them, and what is known of blocks there.
#include <algorithm>

#include "store/base/clock.h"
#include "store/base/units.h"
#include "store/durable_block_store.h"
#include "store/pin_ledger.h"

namespace corpusd {

Result<uint64_t> DurableBlockStore::AttachShelf(uint32_t number, const OpenShelf& open) {
  if (number == 0 || number > options_.shelves) {
    return InvalidArgumentError("shelf " + std::to_string(number) + " is none of the " +
                                std::to_string(options_.shelves) + " that this store has");
  }
  std::map<uint64_t, uint64_t> named;
  uint64_t epoch = 0;
  {
    const std::lock_guard lock(mutex_);
    payload_->PutShelf(number, nullptr);
    // What was written there and is not named by now never will be.
    epoch = ++shelf_epochs_[number];
    for (const auto& [extent, bytes] : catalog_->NamedExtents()) {
      if (ShelfOf(extent) == number) named[WithoutShelf(extent)] = bytes;
    }
  }
  ASSIGN_OR_RETURN(auto shelf, open(named));
  ASSIGN_OR_RETURN(const ShelfUsage usage, shelf->Usage());
  const std::lock_guard lock(mutex_);
  if (shelf_epochs_[number] != epoch) {
    return Status(StatusCode::kAborted, "shelf was attached again meanwhile");
  }
  payload_->PutShelf(number, std::move(shelf));
  shelf_bytes_[number] = usage.capacity_bytes;
  return epoch;
}

void DurableBlockStore::DetachShelf(uint32_t number) {
  const std::lock_guard lock(mutex_);
  ++shelf_epochs_[number];
  payload_->PutShelf(number, nullptr);
}

Result<std::vector<std::optional<BlockLocation>>> DurableBlockStore::Locations(
    std::span<const Digest> digests) const {
  ASSIGN_OR_RETURN(const auto entries, catalog_->Entries(digests));
  std::vector<std::optional<BlockLocation>> locations;
  for (const ChainEntry& entry : entries) {
    const bool here = entry.references > 0 && !entry.quarantined;
    locations.push_back(here ? std::optional(entry.location) : std::nullopt);
  }
  return locations;
}

Status DurableBlockStore::GiveUp(std::span<const Digest> digests) {
  ASSIGN_OR_RETURN(const auto entries, catalog_->Entries(digests));
  for (size_t i = 0; i < entries.size(); ++i) {
    const uint32_t shelf = ShelfOf(entries[i].location.extent);
    if (entries[i].references == 0 || shelf == 0 || payload_->HasShelf(shelf)) continue;
    Quarantine(digests[i], entries[i].location);
  }
  return OkStatus();
}

uint32_t DurableBlockStore::ShelfFor(const CorpusRecord& record, uint64_t position) const {
  if (!options_.shelf_of) return 0;
  const uint32_t shelf = options_.shelf_of(record, position);
  return shelf <= options_.shelves && payload_->HasShelf(shelf) ? shelf : 0;
}

uint64_t DurableBlockStore::ShelfEpoch(uint32_t shelf) const {
  const std::lock_guard lock(mutex_);
  const auto epoch = shelf_epochs_.find(shelf);
  return epoch == shelf_epochs_.end() ? 0 : epoch->second;
}

Status DurableBlockStore::CheckShelvesLocked(std::span<const FreshExtent> fresh) const {
  for (const FreshExtent& some : fresh) {
    const uint32_t shelf = ShelfOf(some.extent.number);
    if (shelf == 0) continue;
    const auto epoch = shelf_epochs_.find(shelf);
    if (epoch != shelf_epochs_.end() && epoch->second == some.epoch) continue;
    return UnavailableError("rank " + std::to_string(shelf) +
                            " went away while blocks were written there");
  }
  return OkStatus();
}

Status DurableBlockStore::MakeRoomOnShelf(uint32_t number, uint64_t bytes,
                                          const CorpusRecord& record) {
  return MakeRoom(bytes, record, record.name, number);
}

Result<std::map<uint32_t, uint64_t>> DurableBlockStore::BytesByShelf(
    const CorpusRecord& record) const {
  ASSIGN_OR_RETURN(const auto entries, catalog_->Entries(AllDigests(record)));
  std::map<uint32_t, uint64_t> bytes;
  for (const ChainEntry& entry : entries) {
    if (entry.references > 0) bytes[ShelfOf(entry.location.extent)] += entry.payload_bytes;
  }
  return bytes;
}

Result<std::map<uint32_t, uint64_t>> DurableBlockStore::PinnedByShelf() const {
  std::map<uint32_t, uint64_t> pinned;
  for (const CorpusRecord& record : ListCorpora()) {
    if (!PinHolds(record, WallTimeMs())) continue;
    ASSIGN_OR_RETURN(const auto bytes, BytesByShelf(record));
    for (const auto& [shelf, some] : bytes) pinned[shelf] += some;
  }
  return pinned;
}

std::vector<std::string> DurableBlockStore::DiagnoseShelves() const {
  std::map<uint32_t, uint64_t> bytes;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [extent, live] : catalog_->live_bytes()) {
      if (ShelfOf(extent) != 0) bytes[ShelfOf(extent)] += live;
    }
  }
  std::vector<std::string> lines;
  for (const auto& [shelf, live] : bytes) {
    const std::string what =
        FormatBytes(live) + " of blocks lie with rank " + std::to_string(shelf);
    if (payload_->HasShelf(shelf)) {
      lines.push_back("ok: " + what);
    } else if (shelf <= options_.shelves) {
      lines.push_back("warn: " + what + ", which is not there: start it, or compute them again " +
                      "with corpusctl verify --repair");
    } else {
      lines.push_back("warn: " + what + ", which there is no more: they are computed again");
    }
  }
  return lines;
}

}  // namespace corpusd
