#include "store/payload_store.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <mutex>
#include <set>
#include <thread>

#include "store/base/fault_point.h"

namespace corpusd {
namespace {

// Enough writers to hide copying and checksums behind the disk.
constexpr size_t kWritersMax = 4;
// A record: the block header, zeros up to a page, the payload, zeros up to a page.
struct alignas(kDirectPage) Page {
  std::array<std::byte, kDirectPage> bytes;
};

uint64_t HeaderPages(uint32_t sections) { return PagesOf(64 + 4 * uint64_t{sections}); }

std::string NameOf(const BlockLocation& location, const Digest& digest) {
  return "block " + digest.Hex().substr(0, 12) + " at extent " + std::to_string(location.extent) +
         "." + std::to_string(location.ordinal);
}

Status WrongSize(uint64_t stored, uint64_t expected) {
  return CorruptionError(std::to_string(stored) + " payload bytes, " + std::to_string(expected) +
                         " expected");
}

// Whole pages that cover a range of a payload: its own memory where that is page-aligned, and
// other pages at the edges, where the rest of a page is somebody else's.
class PageTarget {
 public:
  PageTarget(std::span<std::byte> payload, PayloadStore::ByteRange range)
      : payload_(payload), range_(range) {
    const uint64_t first = range.first / kDirectPage * kDirectPage;
    const uint64_t end = PagesOf(range.end) * kDirectPage;
    uint64_t inner = PagesOf(range.first) * kDirectPage;
    uint64_t inner_end = range.end / kDirectPage * kDirectPage;
    if (!IsPageAligned(payload.data()) || inner >= inner_end) inner = inner_end = end;
    AddEdge(first, inner);
    if (inner < inner_end) parts_.push_back({payload.data() + inner, inner_end - inner});
    AddEdge(inner_end, end);
  }
  std::vector<iovec> parts() const { return parts_; }
  // After reading.
  void CopyEdges() {
    for (auto& [start, buffer] : edges_) {
      const uint64_t first = std::max(start, range_.first);
      const uint64_t end = std::min(start + buffer.bytes().size(), range_.end);
      std::memcpy(payload_.data() + first, buffer.data() + (first - start), end - first);
    }
  }

 private:
  void AddEdge(uint64_t first, uint64_t end) {
    if (first == end) return;
    edges_.emplace_back(first, PageBuffer((end - first) / kDirectPage));
    parts_.push_back({edges_.back().second.data(), end - first});
  }

  std::span<std::byte> payload_;
  PayloadStore::ByteRange range_;
  std::vector<iovec> parts_;
  std::vector<std::pair<uint64_t, PageBuffer>> edges_;  // where in the payload they start
};

// Runs body(i) for i in [0, count) on several threads. RETURNS the first error.
Status ForEach(size_t count, const std::function<Status(size_t)>& body) {
  std::atomic<size_t> next{0};
  std::mutex mutex;
  Status failed;
  const auto work = [&] {
    for (size_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) {
      Status status = body(i);
      if (status.ok()) continue;
      const std::lock_guard lock(mutex);
      if (failed.ok()) failed = std::move(status);
      next = count;
    }
  };
  std::vector<std::jthread> threads;
  for (size_t t = 1; t < std::min(kWritersMax, count); ++t) threads.emplace_back(work);
  work();
  threads.clear();
  return failed;
}

}  // namespace

Result<std::unique_ptr<PayloadStore>> PayloadStore::Open(const std::string& data_dir,
                                                         const std::map<uint64_t, uint64_t>& named,
                                                         uint32_t shelves) {
  std::unique_ptr<PayloadStore> store(new PayloadStore());
  store->shelves_max_ = shelves;
  std::map<uint64_t, uint64_t> in_segments;
  std::set<uint64_t> ingested;
  for (const auto& [extent, bytes] : named) {
    if (ShelfOf(extent) != 0) continue;
    if (IngestedPayload::Holds(extent)) {
      ingested.insert(extent);
    } else {
      in_segments.emplace_hint(in_segments.end(), extent, bytes);
    }
  }
  ASSIGN_OR_RETURN(store->segments_, SegmentStore::Open(data_dir + "/segments", in_segments));
  ASSIGN_OR_RETURN(store->ingested_, IngestedPayload::Open(data_dir + "/payload", ingested));
  return store;
}

Status PayloadStore::WriteRecord(const BlockLocation& location, const Content& content) {
  const uint64_t header_pages =
      HeaderPages(static_cast<uint32_t>(content.header.section_crcs.size()));
  const uint64_t payload_pages = PagesOf(content.payload.size());
  std::vector<std::byte> encoded;
  EncodeBlockHeader(content.header, &encoded);
  if (IsPageAligned(content.payload.data()) && content.payload.size() % kDirectPage == 0) {
    PageBuffer header(header_pages);
    std::memset(header.data(), 0, header.bytes().size());
    std::memcpy(header.data(), encoded.data(), encoded.size());
    const std::array<iovec, 2> parts = {
        {{header.data(), header.bytes().size()},
         {const_cast<std::byte*>(content.payload.data()), content.payload.size()}}};
    return segments_->Write(location.extent, location.ordinal, parts);
  }
  PageBuffer record(header_pages + payload_pages);
  std::byte* const payload = record.data() + header_pages * kDirectPage;
  std::memset(record.data(), 0, header_pages * kDirectPage);
  std::memcpy(record.data(), encoded.data(), encoded.size());
  std::memcpy(payload, content.payload.data(), content.payload.size());
  std::memset(payload + content.payload.size(), 0,
              payload_pages * kDirectPage - content.payload.size());
  const iovec whole{record.data(), record.bytes().size()};
  return segments_->Write(location.extent, location.ordinal, {&whole, 1});
}

Result<PayloadStore::Extent> PayloadStore::Write(
    std::span<const Size> sizes, const std::function<Result<Content>(size_t)>& content) {
  Extent extent;
  uint64_t pages = 0;
  for (const Size& size : sizes) {
    extent.locations.push_back({0, static_cast<uint32_t>(pages)});
    pages += HeaderPages(size.sections) + PagesOf(size.payload_bytes);
  }
  ASSIGN_OR_RETURN(extent.number, segments_->Reserve(pages));
  extent.bytes = pages * kDirectPage;
  for (BlockLocation& location : extent.locations) location.extent = extent.number;
  Status status = ForEach(sizes.size(), [&](size_t i) -> Status {
    ASSIGN_OR_RETURN(const Content block, content(i));
    return WriteRecord(extent.locations[i], block);
  });
  if (status.ok()) status = segments_->MakeDurable(extent.number);
  if (status.ok()) status = FaultPoint("payload.written");
  if (status.ok()) return extent;
  (void)segments_->Drop({&extent.number, 1});
  return status;
}

Result<PayloadStore::Extent> PayloadStore::WriteExtent(std::span<const BlockWrite* const> blocks,
                                                       uint32_t shelf) {
  RETURN_IF_ERROR(FaultPoint("payload.write"));
  if (shelf != 0) return WriteShelved(shelf, [&](BlockShelf& it) { return it.Write(blocks); });
  std::vector<Size> sizes;
  for (const BlockWrite* block : blocks) sizes.push_back({block->sections, block->payload.size()});
  return Write(sizes, [&](size_t i) -> Result<Content> {
    const BlockWrite& block = *blocks[i];
    return Content{MakeBlockHeader(block.digest, static_cast<uint32_t>(block.tokens.size()),
                                   block.payload, block.sections),
                   block.payload, nullptr};
  });
}

Result<PayloadStore::Extent> PayloadStore::CopyToNewExtent(std::span<const StoredBlock> blocks) {
  if (const uint32_t shelf = ShelfOf(blocks.front().location.extent); shelf != 0) {
    std::vector<StoredBlock> there(blocks.begin(), blocks.end());
    for (StoredBlock& block : there) block.location.extent = WithoutShelf(block.location.extent);
    return WriteShelved(shelf, [&](BlockShelf& it) { return it.Copy(there); });
  }
  std::vector<Size> sizes;
  for (const StoredBlock& block : blocks) sizes.push_back({block.sections, block.payload_bytes});
  return Write(sizes, [&](size_t i) -> Result<Content> {
    const StoredBlock& block = blocks[i];
    Content content;
    content.owned = std::make_unique<PageBuffer>(PagesOf(block.payload_bytes));
    const auto payload = content.owned->bytes().first(block.payload_bytes);
    RETURN_IF_ERROR(ReadChecked(block.location, block.digest, block.tokens, block.sections,
                                {0, block.sections}, payload, &content.header));
    content.payload = payload;
    return content;
  });
}

// Into the memory that will be used, which is then checked, so that what was checked is what is
// served.
Result<BlockHeader> PayloadStore::ReadRecord(const BlockLocation& location, uint64_t header_pages,
                                             ByteRange range, std::span<std::byte> payload) const {
  std::unique_ptr<PageBuffer> large;
  Page small;
  if (header_pages > 1) large = std::make_unique<PageBuffer>(header_pages);
  const std::span<std::byte> header = large ? large->bytes() : std::span(small.bytes);
  PageTarget target(payload, range);
  std::vector<iovec> parts = target.parts();
  if (range.first < kDirectPage) {  // the header's neighbours: one read
    parts.insert(parts.begin(), {header.data(), header.size()});
    RETURN_IF_ERROR(ReadPages(location, 0, parts));
  } else {
    const iovec whole{header.data(), header.size()};
    RETURN_IF_ERROR(ReadPages(location, 0, {&whole, 1}));
    RETURN_IF_ERROR(ReadPages(location, header_pages + range.first / kDirectPage, parts));
  }
  target.CopyEdges();
  return DecodeBlockHeader(header);
}

Status PayloadStore::ReadPages(const BlockLocation& location, uint64_t page,
                               std::span<const iovec> parts) const {
  uint64_t bytes = 0;
  for (const iovec& part : parts) bytes += part.iov_len;
  ASSIGN_OR_RETURN(const uint64_t got,
                   segments_->Read(location.extent, location.ordinal + page, parts));
  return got == bytes ? OkStatus() : CorruptionError("the segment file ends inside it");
}

Result<BlockHeader> PayloadStore::ReadIngested(const BlockLocation& location,
                                               std::span<std::byte> payload) const {
  if (ingested_ == nullptr) return NotFoundError("the data folder has no table files");
  BlockHeader header;
  RETURN_IF_ERROR(ingested_->Read(location, [&](std::span<const std::byte> value) -> Status {
    ASSIGN_OR_RETURN(header, DecodeBlockHeader(value));
    const auto stored = value.subspan(header.EncodedBytes());
    if (stored.size() != payload.size()) return WrongSize(stored.size(), payload.size());
    std::memcpy(payload.data(), stored.data(), stored.size());
    return OkStatus();
  }));
  return header;
}

Status PayloadStore::ReadChecked(const BlockLocation& location, const Digest& digest,
                                 uint32_t tokens, uint32_t sections, SectionRange range,
                                 std::span<std::byte> payload, BlockHeader* header) const {
  const auto read = [&]() -> Status {
    if (IngestedPayload::Holds(location.extent)) {
      ASSIGN_OR_RETURN(*header, ReadIngested(location, payload));
    } else {
      const uint64_t part = payload.size() / sections;
      const ByteRange bytes{part * range.first, part * range.end};
      ASSIGN_OR_RETURN(*header, ReadRecord(location, HeaderPages(sections), bytes, payload));
    }
    if (header->digest != digest || header->tokens != tokens ||
        header->section_crcs.size() != sections) {
      return CorruptionError("holds another block");
    }
    return VerifySections(*header, payload, range);
  };
  return read().WithContext(NameOf(location, digest));
}

void PayloadStore::PutShelf(uint32_t number, std::shared_ptr<BlockShelf> shelf) {
  const std::lock_guard lock(shelves_mutex_);
  if (shelf == nullptr) {
    shelves_.erase(number);
  } else {
    shelves_[number] = std::move(shelf);
  }
}

std::shared_ptr<BlockShelf> PayloadStore::Shelf(uint32_t number) const {
  const std::lock_guard lock(shelves_mutex_);
  const auto found = shelves_.find(number);
  return found == shelves_.end() ? nullptr : found->second;
}

std::vector<uint32_t> PayloadStore::ShelvesThere() const {
  const std::lock_guard lock(shelves_mutex_);
  std::vector<uint32_t> numbers;
  for (const auto& [number, shelf] : shelves_) numbers.push_back(number);
  return numbers;
}

Result<ShelfUsage> PayloadStore::UsageOfShelf(uint32_t number) const {
  const auto shelf = Shelf(number);
  if (shelf == nullptr) return UnavailableError("rank " + std::to_string(number) + " is not there");
  return shelf->Usage();
}

Result<PayloadStore::Extent> PayloadStore::WriteShelved(
    uint32_t number, const std::function<Result<BlockExtent>(BlockShelf& shelf)>& write) const {
  const auto shelf = Shelf(number);
  if (shelf == nullptr) return UnavailableError("rank " + std::to_string(number) + " is not there");
  ASSIGN_OR_RETURN(BlockExtent extent, write(*shelf));
  extent.number = OnShelf(number, extent.number);
  for (BlockLocation& location : extent.locations) location.extent = extent.number;
  return extent;
}

Status PayloadStore::ReadShelved(const BlockLocation& location, const Digest& digest,
                                 uint32_t tokens, uint32_t sections, SectionRange range,
                                 std::span<std::byte> payload) const {
  const uint32_t number = ShelfOf(location.extent);
  const std::string where =
      "block " + digest.Hex().substr(0, 12) + " lies with rank " + std::to_string(number);
  if (number > shelves_max_) return NotFoundError(where + ", which there is no more");
  const auto shelf = Shelf(number);
  if (shelf == nullptr) return UnavailableError(where + ", which is not there: start it");
  return shelf->ReadSections({WithoutShelf(location.extent), location.ordinal}, digest, tokens,
                             sections, range, payload);
}

Status PayloadStore::ReadSections(const BlockLocation& location, const Digest& digest,
                                  uint32_t tokens, uint32_t sections, SectionRange range,
                                  std::span<std::byte> payload) const {
  RETURN_IF_ERROR(FaultPoint("payload.read"));
  if (ShelfOf(location.extent) != 0) {
    return ReadShelved(location, digest, tokens, sections, range, payload);
  }
  BlockHeader header;
  return ReadChecked(location, digest, tokens, sections, range, payload, &header);
}

Status PayloadStore::Read(const BlockLocation& location, const Digest& digest, uint32_t tokens,
                          uint32_t sections, std::span<std::byte> payload) const {
  return ReadSections(location, digest, tokens, sections, {0, sections}, payload);
}

Status PayloadStore::DropExtents(std::span<const uint64_t> extents) {
  std::vector<uint64_t> own, old;
  std::map<uint32_t, std::vector<uint64_t>> shelved;
  for (const uint64_t extent : extents) {
    if (ShelfOf(extent) != 0) {
      shelved[ShelfOf(extent)].push_back(WithoutShelf(extent));
    } else {
      (IngestedPayload::Holds(extent) ? old : own).push_back(extent);
    }
  }
  for (const auto& [number, some] : shelved) {
    // One that is away drops what is not named any more when it comes back.
    if (const auto shelf = Shelf(number)) shelf->Drop(some);
  }
  RETURN_IF_ERROR(segments_->Drop(own));
  return ingested_ == nullptr ? OkStatus() : ingested_->Drop(old);
}

std::map<uint64_t, uint64_t> PayloadStore::Extents() const {
  std::map<uint64_t, uint64_t> extents = segments_->Extents();
  if (ingested_ != nullptr) extents.merge(ingested_->Extents());
  return extents;
}

uint64_t PayloadStore::PhysicalBytes() const {
  return segments_->PhysicalBytes() + (ingested_ == nullptr ? 0 : ingested_->PhysicalBytes());
}

}  // namespace corpusd
