// store/ingested_payload.h -- blocks of data folders of schema 1: one ingested RocksDB table file
// an extent, in FOLDER/payload. Read and given back here, never written; what is rewritten goes
// into segment files. Thread-safe.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>

#include "store/block_place.h"
#include "store/rocks_database.h"

namespace corpusd {

class IngestedPayload {
 public:
  // Null if the folder has none. Drops the extents that are not named, and removes the folder when
  // nothing is left in it.
  static Result<std::unique_ptr<IngestedPayload>> Open(const std::string& folder,
                                                       const std::set<uint64_t>& named);
  // Their numbers are small; those of segment extents are not.
  static bool Holds(uint64_t extent) { return extent >> 32 == 0; }

  // Hands over block header and payload as they lie there. kNotFound if there is no such block.
  Status Read(const BlockLocation& location,
              const std::function<Status(std::span<const std::byte>)>& use) const;
  Status Drop(std::span<const uint64_t> extents);
  std::map<uint64_t, uint64_t> Extents() const;  // with their bytes on disk
  uint64_t PhysicalBytes() const { return database_->PhysicalBytes(); }

 private:
  explicit IngestedPayload(std::unique_ptr<RocksDatabase> database)
      : database_(std::move(database)) {}
  std::unique_ptr<RocksDatabase> database_;
};

}  // namespace corpusd
