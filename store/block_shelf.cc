// What of a DurableBlockStore lies on shelves: attaching them, and what is known of blocks there.
#include <algorithm>

#include "store/base/units.h"
#include "store/durable_block_store.h"

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
  const std::lock_guard lock(mutex_);
  if (shelf_epochs_[number] != epoch) {
    return Status(StatusCode::kAborted, "shelf was attached again meanwhile");
  }
  payload_->PutShelf(number, std::move(shelf));
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

Status DurableBlockStore::CheckShelvedLocked(std::span<const BlockWrite> blocks) const {
  for (const BlockWrite& block : blocks) {
    if (!block.shelved) continue;
    const auto epoch = shelf_epochs_.find(block.shelved->shelf);
    if (epoch != shelf_epochs_.end() && epoch->second == block.shelved->epoch) continue;
    return UnavailableError("shelf " + std::to_string(block.shelved->shelf) +
                            " went away while blocks were written there");
  }
  return OkStatus();
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
