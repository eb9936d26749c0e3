// store/block_shelf.h -- extents of a block store that lie elsewhere than in its own folder, such
// as in the data folder of another host: how they are written, read, copied and dropped there.
// The catalogue names them as its own, under the shelf's number. A shelf that is not attached is
// away: its blocks are neither damaged nor lost. Thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "store/base/result.h"
#include "store/block_header.h"
#include "store/block_place.h"
#include "store/prefix_hash.h"

namespace corpusd {

struct BlockWrite;  // store/block_store.h

inline constexpr uint32_t kShelvesMax = 255;
// Payload of one write, unless it is of one block.
inline constexpr uint64_t kShelfWriteBytes = uint64_t{64} << 20;
// An extent's number in the catalogue: that of the shelf, from 1 on (0: the folder's own), then its
// number there, of 56 bits.
constexpr uint32_t ShelfOf(uint64_t extent) { return static_cast<uint32_t>(extent >> 56); }
constexpr uint64_t OnShelf(uint32_t shelf, uint64_t extent) {
  return extent | uint64_t{shelf} << 56;
}
constexpr uint64_t WithoutShelf(uint64_t extent) { return extent << 8 >> 8; }

// What a disk keeps as one: blocks that were written together.
struct BlockExtent {
  uint64_t number = 0;
  uint64_t bytes = 0;                    // on disk
  std::vector<BlockLocation> locations;  // of its blocks in the order given
};
// A block as it lies in an extent.
struct StoredBlock {
  BlockLocation location;
  Digest digest;
  uint32_t tokens = 0;
  uint32_t sections = 0;
  uint64_t payload_bytes = 0;
};

struct ShelfUsage {
  uint64_t used_bytes = 0, capacity_bytes = 0;
};

class BlockShelf {
 public:
  virtual ~BlockShelf() = default;
  // One extent of these blocks, durable when it returns. kResourceExhausted: there is no room.
  virtual Result<BlockExtent> Write(std::span<const BlockWrite* const> blocks) = 0;
  // The same of blocks that lie there already, checked.
  virtual Result<BlockExtent> Copy(std::span<const StoredBlock> blocks) = 0;
  // As PayloadStore::ReadSections, in the shelf's own numbers. kUnavailable: it has gone.
  virtual Status ReadSections(const BlockLocation& location, const Digest& digest, uint32_t tokens,
                              uint32_t sections, SectionRange range,
                              std::span<std::byte> payload) = 0;
  // Gives their space back when it can. Does not wait.
  virtual void Drop(std::span<const uint64_t> extents) = 0;
  virtual Result<ShelfUsage> Usage() = 0;
};

// A block that was written to a shelf before the catalogue names it.
struct ShelvedBlock {
  uint32_t shelf = 0;
  uint64_t epoch = 0;      // of the shelf when it was written: what is older was swept away
  BlockLocation location;  // in the shelf's own numbers
  uint64_t extent_bytes = 0;
  uint64_t payload_bytes = 0;
};

}  // namespace corpusd
