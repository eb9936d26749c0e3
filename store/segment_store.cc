#include "store/segment_store.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <filesystem>

#include "store/base/crc32c.h"

namespace corpusd {
namespace {

constexpr uint64_t kSegmentBytes = uint64_t{256} << 20;
constexpr size_t kOpenFilesMax = 128;
constexpr char kMagic[] = {'C', 'P', 'S', 'G'};
constexpr uint32_t kVersion = 1;
constexpr std::string_view kExtension = ".seg";

// magic 4, version 4, page bytes 4, segment 4, CRC32C of these 4; the rest of the page is zeros.
struct SegmentHeader {
  char magic[4];
  uint32_t version;
  uint32_t page_bytes;
  uint32_t segment;
  uint32_t crc;
};

uint32_t CrcOf(const SegmentHeader& header) {
  return Crc32c(std::as_bytes(std::span(&header, 1)).first(offsetof(SegmentHeader, crc)));
}

Status WriteHeader(DirectFile& file, uint32_t segment) {
  PageBuffer page(1);
  std::memset(page.data(), 0, kDirectPage);
  SegmentHeader header{};
  std::copy(std::begin(kMagic), std::end(kMagic), header.magic);
  header.version = kVersion;
  header.page_bytes = kDirectPage;
  header.segment = segment;
  header.crc = CrcOf(header);
  std::memcpy(page.data(), &header, sizeof header);
  const iovec part{page.data(), kDirectPage};
  return file.Write(0, {&part, 1});
}

// A header whose checksum fails is no reason to give up blocks, which prove themselves; one that is
// whole and of another version, or of another segment, is.
Status CheckHeader(const DirectFile& file, uint32_t segment) {
  PageBuffer page(1);
  const iovec part{page.data(), kDirectPage};
  ASSIGN_OR_RETURN(const uint64_t got, file.Read(0, {&part, 1}));
  SegmentHeader header{};
  if (got < sizeof header) return OkStatus();
  std::memcpy(&header, page.data(), sizeof header);
  if (!std::equal(std::begin(kMagic), std::end(kMagic), header.magic) ||
      header.crc != CrcOf(header)) {
    return OkStatus();
  }
  if (header.version != kVersion || header.page_bytes != kDirectPage) {
    return FailedPreconditionError(
        file.path() + " has layout version " + std::to_string(header.version) + " with pages of " +
        std::to_string(header.page_bytes) + " bytes, which this version cannot read");
  }
  if (header.segment == segment) return OkStatus();
  return CorruptionError(file.path() + " is segment " + std::to_string(header.segment) +
                         ": files of the data folder were renamed");
}

// RETURNS the number in "0000000012.seg", or 0.
uint32_t NumberOf(const std::filesystem::path& path) {
  if (path.extension() != kExtension) return 0;
  const std::string stem = path.stem().string();
  uint32_t number = 0;
  const auto [end, error] = std::from_chars(stem.data(), stem.data() + stem.size(), number);
  return error == std::errc() && end == stem.data() + stem.size() ? number : 0;
}

}  // namespace

std::string SegmentStore::PathOf(uint32_t segment) const {
  const std::string digits = std::to_string(segment);
  return folder_ + "/" + std::string(10 - digits.size(), '0') + digits + std::string(kExtension);
}

Result<std::unique_ptr<SegmentStore>> SegmentStore::Open(
    const std::string& folder, const std::map<uint64_t, uint64_t>& named) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return IoError("creating " + folder + ": " + error.message());
  std::unique_ptr<SegmentStore> store(new SegmentStore(folder));
  for (const auto& [extent, bytes] : named) {
    Segment& segment = store->segments_[SegmentOf(extent)];
    segment.present = false;
    segment.extents[FirstPageOf(extent)] = static_cast<uint32_t>(PagesOf(bytes));
  }
  std::vector<uint32_t> found;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    if (const uint32_t number = NumberOf(entry.path()); number != 0) found.push_back(number);
  }
  if (error) return IoError("listing " + folder + ": " + error.message());
  for (const uint32_t number : found) {
    store->next_segment_ = std::max(store->next_segment_, number + 1);
    const auto segment = store->segments_.find(number);
    if (segment == store->segments_.end()) {
      RETURN_IF_ERROR(RemoveFile(store->PathOf(number)));
      continue;
    }
    segment->second.present = true;
    const auto& extents = segment->second.extents;
    // An extent of unknown length could lose what is its own.
    if (std::none_of(extents.begin(), extents.end(), [](const auto& e) { return e.second == 0; })) {
      RETURN_IF_ERROR(store->Sweep(number, segment->second));
    }
  }
  if (!store->segments_.empty()) {
    store->next_segment_ = std::max(store->next_segment_, store->segments_.rbegin()->first + 1);
  }
  store->segment_pages_ = kSegmentBytes / kDirectPage;
  return store;
}

// Cuts what lies behind the last named extent and punches what lies between them, unless the file
// takes no more than it should.
Status SegmentStore::Sweep(uint32_t number, const Segment& segment) {
  uint64_t expected_bytes = kDirectPage;
  for (const auto& [page, pages] : segment.extents) expected_bytes += pages * kDirectPage;
  used_bytes_ += expected_bytes;
  ASSIGN_OR_RETURN(const auto file, DirectFile::Open(PathOf(number)));
  ASSIGN_OR_RETURN(const uint64_t bytes, file->Bytes());
  ASSIGN_OR_RETURN(const uint64_t disk_bytes, file->DiskBytes());
  const auto& last = *segment.extents.rbegin();
  const uint64_t end = (uint64_t{last.first} + last.second) * kDirectPage;
  if (bytes > end) RETURN_IF_ERROR(file->Truncate(end));
  if (disk_bytes <= expected_bytes) return OkStatus();
  uint64_t gap = kDirectPage;
  for (const auto& [page, pages] : segment.extents) {
    const uint64_t start = page * kDirectPage;
    if (start > gap) (void)file->Punch(gap, start - gap);
    gap = start + pages * kDirectPage;
  }
  return OkStatus();
}

Result<std::shared_ptr<DirectFile>> SegmentStore::FileOfLocked(uint32_t segment) const {
  const auto it = std::find_if(open_.begin(), open_.end(),
                               [&](const OpenFile& file) { return file.first == segment; });
  if (it != open_.end()) {
    open_.splice(open_.begin(), open_, it);
    return it->second;
  }
  const auto known = segments_.find(segment);
  if (known == segments_.end() || !known->second.present) {
    return NotFoundError(PathOf(segment) + " is not there");
  }
  ASSIGN_OR_RETURN(auto file, DirectFile::Open(PathOf(segment)));
  RETURN_IF_ERROR(CheckHeader(*file, segment));
  KeepOpenLocked(segment, file);
  return file;
}

void SegmentStore::KeepOpenLocked(uint32_t segment, std::shared_ptr<DirectFile> file) const {
  open_.emplace_front(segment, std::move(file));
  if (open_.size() > kOpenFilesMax) open_.pop_back();
}

Result<std::shared_ptr<DirectFile>> SegmentStore::FileOf(uint32_t segment) const {
  const std::lock_guard lock(mutex_);
  return FileOfLocked(segment);
}

Status SegmentStore::StartSegmentLocked() {
  const uint32_t number = next_segment_++;
  ASSIGN_OR_RETURN(auto file, DirectFile::Create(PathOf(number)));
  if (const Status written = WriteHeader(*file, number); !written.ok()) {
    (void)RemoveFile(PathOf(number));
    return written;
  }
  // Without hole punching an extent's space comes back only with its file: each gets its own.
  if (file->Punch(kDirectPage, kDirectPage).code() == StatusCode::kUnimplemented) {
    segment_pages_ = 1;
  }
  segments_[number].name_durable = false;
  used_bytes_ += kDirectPage;
  KeepOpenLocked(number, std::move(file));
  current_ = number;
  current_page_ = 1;
  return OkStatus();
}

Result<uint64_t> SegmentStore::Reserve(uint64_t pages) {
  const std::lock_guard lock(mutex_);
  if (current_ == 0 || (current_page_ > 1 && current_page_ + pages > segment_pages_)) {
    RETURN_IF_ERROR(StartSegmentLocked());
  }
  ASSIGN_OR_RETURN(const auto file, FileOfLocked(current_));
  const uint32_t segment = current_;
  const auto first = static_cast<uint32_t>(current_page_);
  const Status allocated = file->Allocate(first * kDirectPage, pages * kDirectPage);
  if (!allocated.ok()) {
    (void)file->Truncate(first * kDirectPage);  // it may have taken a part
    if (segments_[segment].extents.empty()) (void)DropSegmentLocked(segment);
    return allocated;
  }
  current_page_ += pages;
  used_bytes_ += pages * kDirectPage;
  segments_[segment].extents[first] = static_cast<uint32_t>(pages);
  return uint64_t{segment} << 32 | first;
}

Status SegmentStore::Write(uint64_t extent, uint64_t page, std::span<const iovec> parts) {
  ASSIGN_OR_RETURN(const auto file, FileOf(SegmentOf(extent)));
  return file->Write((FirstPageOf(extent) + page) * kDirectPage, parts);
}

Status SegmentStore::MakeDurable(uint64_t extent) {
  const uint32_t number = SegmentOf(extent);
  ASSIGN_OR_RETURN(const auto file, FileOf(number));
  Status synced = file->Sync();
  bool name_durable = false;
  {
    const std::lock_guard lock(mutex_);
    name_durable = segments_.at(number).name_durable;
    // After a failed sync nobody knows what of the file's recent changes is on the disk.
    if (!synced.ok() && current_ == number) current_ = 0;
  }
  if (!synced.ok() || name_durable) return synced;
  RETURN_IF_ERROR(SyncFolder(folder_));
  const std::lock_guard lock(mutex_);
  segments_.at(number).name_durable = true;
  return OkStatus();
}

Result<uint64_t> SegmentStore::Read(uint64_t extent, uint64_t page,
                                    std::span<const iovec> parts) const {
  ASSIGN_OR_RETURN(const auto file, FileOf(SegmentOf(extent)));
  return file->Read((FirstPageOf(extent) + page) * kDirectPage, parts);
}

Status SegmentStore::DropSegmentLocked(uint32_t segment) {
  if (current_ == segment) current_ = 0;
  std::erase_if(open_, [&](const OpenFile& file) { return file.first == segment; });
  const bool present = segments_.at(segment).present;
  segments_.erase(segment);
  if (!present) return OkStatus();
  used_bytes_ -= kDirectPage;
  return RemoveFile(PathOf(segment));
}

Status SegmentStore::Drop(std::span<const uint64_t> extents) {
  const std::lock_guard lock(mutex_);
  std::map<uint32_t, std::map<uint32_t, uint32_t>> dropped;
  for (const uint64_t extent : extents) {
    const auto segment = segments_.find(SegmentOf(extent));
    if (segment == segments_.end()) continue;
    const auto run = segment->second.extents.find(FirstPageOf(extent));
    if (run == segment->second.extents.end()) continue;
    dropped[segment->first].insert(*run);
    segment->second.extents.erase(run);
  }
  Status failed;
  for (const auto& [number, runs] : dropped) {
    const Segment& segment = segments_.at(number);
    uint64_t bytes = 0;
    for (const auto& [page, pages] : runs) bytes += pages * kDirectPage;
    if (segment.present) used_bytes_ -= bytes;
    Status given_back =
        segment.extents.empty() ? DropSegmentLocked(number) : PunchLocked(number, runs);
    if (given_back.ok()) continue;
    lost_bytes_ += bytes;  // given back when the folder is next opened
    failed = std::move(given_back);
  }
  return failed;
}

Status SegmentStore::PunchLocked(uint32_t segment, const std::map<uint32_t, uint32_t>& runs) {
  ASSIGN_OR_RETURN(const auto file, FileOfLocked(segment));
  for (auto run = runs.begin(); run != runs.end();) {
    const uint64_t first = run->first;
    uint64_t end = first + run->second;
    for (++run; run != runs.end() && run->first == end; ++run) end += run->second;
    RETURN_IF_ERROR(file->Punch(first * kDirectPage, (end - first) * kDirectPage));
  }
  return OkStatus();
}

std::map<uint64_t, uint64_t> SegmentStore::Extents() const {
  const std::lock_guard lock(mutex_);
  std::map<uint64_t, uint64_t> extents;
  for (const auto& [number, segment] : segments_) {
    if (!segment.present) continue;
    for (const auto& [page, pages] : segment.extents) {
      extents.emplace_hint(extents.end(), uint64_t{number} << 32 | page, pages * kDirectPage);
    }
  }
  return extents;
}

uint64_t SegmentStore::PhysicalBytes() const {
  const std::lock_guard lock(mutex_);
  return used_bytes_ + lost_bytes_;
}

}  // namespace corpusd
