// store/segment_store.h -- runs of pages ("extents") in append-only segment files of up to 256 MiB.
// Which extents exist is told by the catalogue; the files hold no list of them. A dropped extent's
// pages are punched out at once, a segment without extents is removed, a page is never written
// twice. Knows pages only; what they say is payload_store.h's. Thread-safe.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "store/base/result.h"
#include "store/direct_file.h"

namespace corpusd {

class SegmentStore {
 public:
  // named: the extents that the catalogue holds, with their bytes. Everything else in the folder's
  // segments, as a crash may leave it, is given back.
  static Result<std::unique_ptr<SegmentStore>> Open(const std::string& folder,
                                                    const std::map<uint64_t, uint64_t>& named);

  // Takes space for an extent; it counts as used from now on. RETURNS its number.
  Result<uint64_t> Reserve(uint64_t pages);
  // Fills pages of a reserved extent, from `page` of it on.
  Status Write(uint64_t extent, uint64_t page, std::span<const iovec> parts);
  // All pages written are on the disk, and found after a crash, when it returns.
  Status MakeDurable(uint64_t extent);
  // RETURNS the bytes read. kNotFound: the extent or its file is not there.
  Result<uint64_t> Read(uint64_t extent, uint64_t page, std::span<const iovec> parts) const;
  // Gives the extents' space back; unknown ones are ignored.
  Status Drop(std::span<const uint64_t> extents);

  // Extents whose file is there, with their bytes; those being written too.
  std::map<uint64_t, uint64_t> Extents() const;
  // What the extents and their files take, space reserved for writing included.
  uint64_t PhysicalBytes() const;

  // An extent's number says where it lies: segment << 32 | first page.
  static uint32_t SegmentOf(uint64_t extent) { return static_cast<uint32_t>(extent >> 32); }
  static uint32_t FirstPageOf(uint64_t extent) { return static_cast<uint32_t>(extent); }

 private:
  struct Segment {
    std::map<uint32_t, uint32_t> extents;  // first page -> pages
    bool present = true;                   // its file is there
    bool name_durable = true;
  };
  explicit SegmentStore(std::string folder) : folder_(std::move(folder)) {}

  std::string PathOf(uint32_t segment) const;
  Status Sweep(uint32_t number, const Segment& segment);
  Result<std::shared_ptr<DirectFile>> FileOfLocked(uint32_t segment) const;
  void KeepOpenLocked(uint32_t segment, std::shared_ptr<DirectFile> file) const;
  Result<std::shared_ptr<DirectFile>> FileOf(uint32_t segment) const;
  Status StartSegmentLocked();
  Status DropSegmentLocked(uint32_t segment);
  Status PunchLocked(uint32_t segment, const std::map<uint32_t, uint32_t>& runs);

  const std::string folder_;
  mutable std::mutex mutex_;
  std::map<uint32_t, Segment> segments_;
  // Open files, the last used first.
  using OpenFile = std::pair<uint32_t, std::shared_ptr<DirectFile>>;
  mutable std::list<OpenFile> open_;
  uint32_t next_segment_ = 1;
  uint32_t current_ = 0;       // where the next extent goes; 0: into a new segment
  uint64_t current_page_ = 0;  // its first free page
  uint64_t segment_pages_;     // of a full segment
  uint64_t used_bytes_ = 0;    // of the extents in files that are there, and those files' headers
  uint64_t lost_bytes_ = 0;    // dropped, but still on the disk because giving back failed
};

}  // namespace corpusd
