// store/payload_store.h -- the disk tier's blocks. Every publish writes one extent: a run of blocks
// in a segment file, each behind its header, durable before its location is made known. Extents of
// older data folders lie in ingested table files and are read from there. Thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "store/base/result.h"
#include "store/block_header.h"
#include "store/block_place.h"
#include "store/block_shelf.h"
#include "store/block_store.h"
#include "store/ingested_payload.h"
#include "store/segment_store.h"

namespace corpusd {

class PayloadStore {
 public:
  // named: the extents that the catalogue knows, with their bytes (0 for older ones). What else
  // lies in data_dir is given back.
  // shelves: how many there may be; extents on them are theirs.
  static Result<std::unique_ptr<PayloadStore>> Open(const std::string& data_dir,
                                                    const std::map<uint64_t, uint64_t>& named,
                                                    uint32_t shelves = 0);
  // Extents of this shelf are read and dropped there from now on; null: it is away.
  void PutShelf(uint32_t number, std::shared_ptr<BlockShelf> shelf);
  bool HasShelf(uint32_t number) const { return Shelf(number) != nullptr; }
  std::vector<uint32_t> ShelvesThere() const;

  struct ByteRange {
    uint64_t first = 0, end = 0;
  };
  using Extent = BlockExtent;
  // Writes the blocks as one extent, in the folder or on a shelf. On an error nothing stays behind.
  // kUnavailable: the shelf is away.
  Result<Extent> WriteExtent(std::span<const BlockWrite* const> blocks, uint32_t shelf = 0);
  // Reads one block into payload, checking header, digest, token count and every section's CRC.
  // Page-aligned payload memory is read into directly. kCorruption: damaged; kNotFound: no such
  // block; kUnavailable: its shelf is away.
  Status Read(const BlockLocation& location, const Digest& digest, uint32_t tokens,
              uint32_t sections, std::span<std::byte> payload) const;
  // The same for some of its sections, to their places in the whole payload.
  Status ReadSections(const BlockLocation& location, const Digest& digest, uint32_t tokens,
                      uint32_t sections, SectionRange range, std::span<std::byte> payload) const;
  // Whether ReadSections of a part costs less than of the whole.
  static bool ReadsParts() { return true; }
  // Copies blocks of one disk as they are, checked, into one new extent there.
  Result<Extent> CopyToNewExtent(std::span<const StoredBlock> blocks);
  // Of a shelf that is there. kUnavailable: it is away.
  Result<ShelfUsage> UsageOfShelf(uint32_t number) const;
  // Gives the extents' space back at once.
  Status DropExtents(std::span<const uint64_t> extents);
  // Extents on disk, with their bytes there.
  std::map<uint64_t, uint64_t> Extents() const;
  // What payload takes on disk, what is being written included.
  uint64_t PhysicalBytes() const;

 private:
  struct Size {
    uint32_t sections = 0;
    uint64_t payload_bytes = 0;
  };
  struct Content {
    BlockHeader header;
    std::span<const std::byte> payload;
    std::unique_ptr<PageBuffer> owned;  // payload's memory, if nobody else has it
  };
  // content(i) is asked for on several threads.
  Result<Extent> Write(std::span<const Size> sizes,
                       const std::function<Result<Content>(size_t)>& content);
  Status WriteRecord(const BlockLocation& location, const Content& content);
  Status ReadChecked(const BlockLocation& location, const Digest& digest, uint32_t tokens,
                     uint32_t sections, SectionRange range, std::span<std::byte> payload,
                     BlockHeader* header) const;
  Result<BlockHeader> ReadRecord(const BlockLocation& location, uint64_t header_pages,
                                 ByteRange range, std::span<std::byte> payload) const;
  Status ReadPages(const BlockLocation& location, uint64_t page,
                   std::span<const iovec> parts) const;
  std::shared_ptr<BlockShelf> Shelf(uint32_t number) const;
  Result<Extent> WriteShelved(
      uint32_t number, const std::function<Result<BlockExtent>(BlockShelf& shelf)>& write) const;
  Status ReadShelved(const BlockLocation& location, const Digest& digest, uint32_t tokens,
                     uint32_t sections, SectionRange range, std::span<std::byte> payload) const;
  Result<BlockHeader> ReadIngested(const BlockLocation& location,
                                   std::span<std::byte> payload) const;

  std::unique_ptr<SegmentStore> segments_;
  std::unique_ptr<IngestedPayload> ingested_;  // null: the folder never had any
  uint32_t shelves_max_ = 0;
  mutable std::mutex shelves_mutex_;
  std::map<uint32_t, std::shared_ptr<BlockShelf>> shelves_;  // those that are there
};

}  // namespace corpusd
