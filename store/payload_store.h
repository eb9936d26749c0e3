// store/payload_store.h -- the disk tier's blocks. Every publish writes one extent: a run of blocks
// in one table file, durable before its location is made known. Extents are numbered upwards, so a
// corpus lies on disk in order and leaves it by dropping whole files. Thread-safe.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "store/base/result.h"
#include "store/block_store.h"
#include "store/rocks_database.h"

namespace corpusd {

struct BlockLocation {
  uint64_t extent = 0;
  uint32_t ordinal = 0;
};

class PayloadStore {
 public:
  static Result<std::unique_ptr<PayloadStore>> Open(const std::string& folder);

  // Writes the blocks as one extent. RETURNS its number; block i is at ordinal i.
  Result<uint64_t> WriteExtent(std::span<const BlockWrite* const> blocks);
  // Reads one block into payload, checking header, digest, token count and every section's CRC.
  // kCorruption: damaged; kNotFound: no such block.
  Status Read(const BlockLocation& location, const Digest& digest, uint32_t tokens,
              std::span<std::byte> payload) const;
  // Gives the extent's space back at once.
  Status DropExtent(uint64_t extent);
  // Drops every extent that is not in `live`: what a crash left between payload and catalogue.
  Status DropAllBut(const std::set<uint64_t>& live);
  uint64_t PhysicalBytes() const { return database_->PhysicalBytes(); }

 private:
  explicit PayloadStore(std::unique_ptr<RocksDatabase> database) : database_(std::move(database)) {}

  std::unique_ptr<RocksDatabase> database_;
  std::atomic<uint64_t> next_extent_{1};
};

}  // namespace corpusd
