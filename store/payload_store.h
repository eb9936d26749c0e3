// store/payload_store.h -- the disk tier's blocks. Every publish writes one extent: a run of blocks
// in one table file, durable before its location is made known. Extents are numbered upwards, so a
// corpus lies on disk in order and leaves it by dropping whole files. Thread-safe.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "store/base/result.h"
#include "store/block_header.h"
#include "store/block_place.h"
#include "store/block_store.h"
#include "store/rocks_database.h"

namespace corpusd {

class PayloadStore {
 public:
  // Extent numbers given out from now on are above `above`, too.
  static Result<std::unique_ptr<PayloadStore>> Open(const std::string& folder, uint64_t above);

  // Writes the blocks as one extent. RETURNS its number; block i is at ordinal i.
  Result<uint64_t> WriteExtent(std::span<const BlockWrite* const> blocks);
  // Reads one block into payload, checking header, digest, token count and every section's CRC.
  // kCorruption: damaged; kNotFound: no such block.
  Status Read(const BlockLocation& location, const Digest& digest, uint32_t tokens,
              std::span<std::byte> payload) const;
  // The same for some of its sections, to their places in the whole payload.
  Status ReadSections(const BlockLocation& location, const Digest& digest, uint32_t tokens,
                      SectionRange range, std::span<std::byte> payload) const;
  // Whether ReadSections of a part costs less than of the whole: RocksDB reads whole values.
  bool ReadsParts() const { return false; }
  // Copies blocks as they are, checked, into one new extent. RETURNS its number.
  struct StoredBlock {
    BlockLocation location;
    Digest digest;
    uint32_t tokens = 0;
  };
  Result<uint64_t> CopyToNewExtent(std::span<const StoredBlock> blocks);
  // Gives the extents' space back at once.
  Status DropExtents(std::span<const uint64_t> extents);
  // Extents on disk, with their bytes there.
  std::map<uint64_t, uint64_t> Extents() const;
  uint64_t PhysicalBytes() const { return database_->PhysicalBytes(); }

 private:
  explicit PayloadStore(std::unique_ptr<RocksDatabase> database) : database_(std::move(database)) {}

  std::unique_ptr<RocksDatabase> database_;
  std::atomic<uint64_t> next_extent_{1};
};

}  // namespace corpusd
