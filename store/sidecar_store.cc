#include "store/sidecar_store.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <vector>

#include "store/base/check.h"
#include "store/base/crc32c.h"
#include "store/base/fault_point.h"
#include "store/direct_file.h"

namespace corpusd {
namespace {

// "CPSC"
constexpr uint32_t kMagic = 0x43535043;
constexpr uint32_t kVersion = 1;
constexpr uint64_t kChunkBytes = uint64_t{1} << 20;
constexpr size_t kFixedBytes = 28;  // of the header, before the chunks' checksums
constexpr size_t kKindBytesMax = 32;
constexpr std::string_view kExtension = ".side";
constexpr std::string_view kDraftExtension = ".draft";

uint64_t ChunksOf(uint64_t bytes) { return (bytes + kChunkBytes - 1) / kChunkBytes; }
uint64_t HeaderBytes(uint64_t bytes) { return kFixedBytes + 4 * (ChunksOf(bytes) + 1); }
uint64_t HeaderPages(uint64_t bytes) { return PagesOf(HeaderBytes(bytes)); }

struct Header {
  uint64_t corpus_id = 0;
  uint64_t bytes = 0;
  std::vector<uint32_t> crcs;  // of each chunk
};

template <typename T>
void Append(std::string* out, T value) {
  out->append(reinterpret_cast<const char*>(&value), sizeof value);
}

template <typename T>
T ReadAt(std::span<const std::byte> bytes, size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

std::string Encode(const Header& header) {
  std::string bytes;
  Append(&bytes, kMagic);
  Append(&bytes, kVersion);
  Append(&bytes, header.corpus_id);
  Append(&bytes, header.bytes);
  Append(&bytes, static_cast<uint32_t>(kChunkBytes));
  for (const uint32_t crc : header.crcs) Append(&bytes, crc);
  Append(&bytes, Crc32c(std::as_bytes(std::span(bytes))));
  CHECK(bytes.size() == HeaderBytes(header.bytes)) << bytes.size();
  return bytes;
}

Status Damaged(const std::string& path, const std::string& what) {
  return CorruptionError("sidecar " + std::filesystem::path(path).filename().string() + ": " +
                         what);
}

Status ReadPages(const DirectFile& file, uint64_t page, std::span<std::byte> memory) {
  const iovec part = {memory.data(), memory.size()};
  ASSIGN_OR_RETURN(const uint64_t got, file.Read(page * kDirectPage, {&part, 1}));
  return got == memory.size() ? OkStatus() : Damaged(file.path(), "it is cut off");
}

Result<Header> ReadHeader(const DirectFile& file) {
  PageBuffer first(1);
  RETURN_IF_ERROR(ReadPages(file, 0, first.bytes()));
  Header header;
  header.corpus_id = ReadAt<uint64_t>(first.bytes(), 8);
  header.bytes = ReadAt<uint64_t>(first.bytes(), 16);
  ASSIGN_OR_RETURN(const uint64_t file_bytes, file.Bytes());
  if (ReadAt<uint32_t>(first.bytes(), 0) != kMagic ||
      ReadAt<uint32_t>(first.bytes(), 4) != kVersion ||
      ReadAt<uint32_t>(first.bytes(), 24) != kChunkBytes || header.bytes > file_bytes ||
      SidecarStore::DiskBytes(header.bytes) != file_bytes) {
    return Damaged(file.path(), "its header is none of this version, or its length another");
  }
  PageBuffer pages(HeaderPages(header.bytes));
  RETURN_IF_ERROR(ReadPages(file, 0, pages.bytes()));
  const size_t checked = HeaderBytes(header.bytes) - sizeof(uint32_t);
  if (Crc32c(std::span(pages.bytes()).first(checked)) != ReadAt<uint32_t>(pages.bytes(), checked)) {
    return Damaged(file.path(), "the checksum of its header differs");
  }
  for (uint64_t c = 0; c < ChunksOf(header.bytes); ++c) {
    header.crcs.push_back(ReadAt<uint32_t>(pages.bytes(), kFixedBytes + 4 * c));
  }
  return header;
}

class OpenSidecar : public SidecarReader {
 public:
  OpenSidecar(std::shared_ptr<DirectFile> file, Header header)
      : file_(std::move(file)), header_(std::move(header)) {}

  uint64_t bytes() const override { return header_.bytes; }

  Status Read(uint64_t offset, std::span<std::byte> bytes) const override {
    if (offset > header_.bytes || bytes.size() > header_.bytes - offset) {
      return InvalidArgumentError("reading a sidecar behind its end");
    }
    std::unique_ptr<PageBuffer> buffer;
    while (!bytes.empty()) {
      const uint64_t chunk = offset / kChunkBytes;
      const uint64_t skipped = offset % kChunkBytes;
      const uint64_t chunk_bytes = std::min(kChunkBytes, header_.bytes - chunk * kChunkBytes);
      const uint64_t count = std::min<uint64_t>(chunk_bytes - skipped, bytes.size());
      const bool direct = skipped == 0 && count == kChunkBytes && IsPageAligned(bytes.data());
      if (!direct && buffer == nullptr) buffer = std::make_unique<PageBuffer>(PagesOf(kChunkBytes));
      const std::span<std::byte> memory =
          direct ? bytes.first(kChunkBytes)
                 : buffer->bytes().first(PagesOf(chunk_bytes) * kDirectPage);
      RETURN_IF_ERROR(
          ReadPages(*file_, HeaderPages(header_.bytes) + chunk * PagesOf(kChunkBytes), memory));
      if (Crc32c(memory.first(chunk_bytes)) != header_.crcs[chunk]) {
        return Damaged(file_->path(), "the checksum of MiB " + std::to_string(chunk) + " differs");
      }
      if (!direct) std::memcpy(bytes.data(), memory.data() + skipped, count);
      offset += count;
      bytes = bytes.subspan(count);
    }
    return OkStatus();
  }

 private:
  const std::shared_ptr<DirectFile> file_;
  const Header header_;
};

// Gives out the parts' bytes as if they were one.
class PartReader {
 public:
  explicit PartReader(SidecarStore::Parts parts) : parts_(parts) {}
  void Take(std::span<std::byte> bytes) {
    while (!bytes.empty()) {
      CHECK(part_ < parts_.size()) << "fewer bytes than were told";
      const auto left = parts_[part_].subspan(offset_);
      const size_t count = std::min(left.size(), bytes.size());
      if (count > 0) std::memcpy(bytes.data(), left.data(), count);
      bytes = bytes.subspan(count);
      offset_ += count;
      if (count == left.size()) {
        ++part_;
        offset_ = 0;
      }
    }
  }

 private:
  const SidecarStore::Parts parts_;
  size_t part_ = 0, offset_ = 0;
};

Status MakeFolder(const std::string& folder) {
  std::error_code error;
  const bool made = std::filesystem::create_directories(folder, error);
  if (error == std::errc::no_space_on_device) {
    return ResourceExhaustedError("making " + folder + ": " + error.message());
  }
  if (error) return IoError("making " + folder + ": " + error.message());
  return made ? SyncFolder(std::filesystem::path(folder).parent_path().string()) : OkStatus();
}

// "12.retrieval.side" -> 12, "retrieval". False for any other name.
bool ParseName(const std::string& name, uint64_t* corpus_id, std::string* kind) {
  if (!name.ends_with(kExtension)) return false;
  const std::string stem = name.substr(0, name.size() - kExtension.size());
  const size_t digits = stem.find_first_not_of("0123456789");
  if (digits == 0 || digits > 19 || stem[digits] != '.') return false;
  *corpus_id = std::stoull(stem.substr(0, digits));
  *kind = stem.substr(digits + 1);
  return SidecarStore::CheckKind(*kind).ok();
}

}  // namespace

Status SidecarStore::CheckKind(std::string_view kind) {
  const bool good = !kind.empty() && kind.size() <= kKindBytesMax &&
                    std::all_of(kind.begin(), kind.end(), [](char c) {
                      return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
                    });
  if (good) return OkStatus();
  return InvalidArgumentError("'" + std::string(kind) + "' is no kind of sidecar");
}

uint64_t SidecarStore::TotalBytes(Parts parts) {
  uint64_t bytes = 0;
  for (const auto& part : parts) bytes += part.size();
  return bytes;
}

uint64_t SidecarStore::DiskBytes(uint64_t bytes) {
  return (HeaderPages(bytes) + PagesOf(bytes)) * kDirectPage;
}

std::string SidecarStore::PathOf(uint64_t corpus_id, std::string_view kind) const {
  return folder_ + "/" + std::to_string(corpus_id) + "." + std::string(kind) +
         std::string(kExtension);
}

Result<std::unique_ptr<SidecarStore>> SidecarStore::Open(const std::string& folder,
                                                         const std::set<uint64_t>& corpora) {
  std::unique_ptr<SidecarStore> store(new SidecarStore(folder));
  if (!MakeFolder(folder).ok()) return store;  // a full disk: tried again with the first sidecar
  std::error_code error;
  std::filesystem::directory_iterator entries(folder, error);
  if (error) return IoError("cannot read " + folder + ": " + error.message());
  std::vector<std::string> stale;
  for (; entries != std::filesystem::directory_iterator(); entries.increment(error)) {
    const std::string path = entries->path().string();
    const std::string name = entries->path().filename().string();
    uint64_t id = 0;
    std::string kind;
    if (ParseName(name, &id, &kind) && corpora.contains(id)) {
      const uint64_t bytes = entries->file_size(error);
      store->disk_bytes_[{id, kind}] = error ? 0 : bytes;
    } else if (name.ends_with(kExtension) || name.ends_with(kDraftExtension)) {
      stale.push_back(path);
    }
    if (error) break;
  }
  if (error) return IoError("cannot read " + folder + ": " + error.message());
  for (const std::string& path : stale) RETURN_IF_ERROR(RemoveFile(path));
  return store;
}

SidecarStore::Draft::Draft(SidecarStore& store, uint64_t corpus_id, std::string kind,
                           std::string path, uint64_t disk_bytes)
    : store_(store),
      corpus_id_(corpus_id),
      kind_(std::move(kind)),
      path_(std::move(path)),
      disk_bytes_(disk_bytes) {}

SidecarStore::Draft::~Draft() {
  if (!published_) (void)RemoveFile(path_);
  const std::lock_guard lock(store_.mutex_);
  if (!published_) store_.draft_bytes_ -= disk_bytes_;
}

std::unique_ptr<SidecarStore::Draft> SidecarStore::Begin(uint64_t corpus_id, std::string_view kind,
                                                         uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  draft_bytes_ += DiskBytes(bytes);
  const std::string path =
      folder_ + "/" + std::to_string(next_draft_++) + std::string(kDraftExtension);
  return std::unique_ptr<Draft>(
      new Draft(*this, corpus_id, std::string(kind), path, DiskBytes(bytes)));
}

Status SidecarStore::Write(const Draft& draft, Parts parts) const {
  RETURN_IF_ERROR(FaultPoint("sidecar.write"));
  RETURN_IF_ERROR(MakeFolder(folder_));
  ASSIGN_OR_RETURN(const auto file, DirectFile::Create(draft.path_));
  Header header{draft.corpus_id_, TotalBytes(parts), {}};
  CHECK(DiskBytes(header.bytes) == draft.disk_bytes_) << header.bytes;
  RETURN_IF_ERROR(file->Allocate(0, draft.disk_bytes_));
  PartReader reader(parts);
  PageBuffer buffer(std::max(PagesOf(kChunkBytes), HeaderPages(header.bytes)));
  const auto write = [&](uint64_t page, uint64_t bytes) {
    const uint64_t padded = PagesOf(bytes) * kDirectPage;
    std::memset(buffer.data() + bytes, 0, padded - bytes);
    const iovec part = {buffer.data(), padded};
    return file->Write(page * kDirectPage, {&part, 1});
  };
  const uint64_t header_pages = HeaderPages(header.bytes);
  for (uint64_t done = 0; done < header.bytes; done += kChunkBytes) {
    const uint64_t count = std::min(kChunkBytes, header.bytes - done);
    reader.Take(buffer.bytes().first(count));
    header.crcs.push_back(Crc32c(buffer.bytes().first(count)));
    RETURN_IF_ERROR(write(header_pages + done / kDirectPage, count));
  }
  const std::string front = Encode(header);
  std::memcpy(buffer.data(), front.data(), front.size());
  RETURN_IF_ERROR(write(0, front.size()));
  RETURN_IF_ERROR(file->Sync());
  return FaultPoint("sidecar.written");
}

Status SidecarStore::Publish(Draft* draft) {
  const std::lock_guard lock(mutex_);
  RETURN_IF_ERROR(RenameFile(draft->path_, PathOf(draft->corpus_id_, draft->kind_)));
  draft->published_ = true;
  draft_bytes_ -= draft->disk_bytes_;
  disk_bytes_[{draft->corpus_id_, draft->kind_}] = draft->disk_bytes_;
  return SyncFolder(folder_);
}

Result<std::shared_ptr<const SidecarReader>> SidecarStore::Open(uint64_t corpus_id,
                                                                std::string_view kind) const {
  RETURN_IF_ERROR(CheckKind(kind));
  auto file = DirectFile::Open(PathOf(corpus_id, kind));
  if (file.status().code() == StatusCode::kNotFound) {
    return NotFoundError("corpus " + std::to_string(corpus_id) + " has no sidecar '" +
                         std::string(kind) + "'");
  }
  RETURN_IF_ERROR(file.status());
  ASSIGN_OR_RETURN(Header header, ReadHeader(**file));
  if (header.corpus_id != corpus_id) return Damaged((*file)->path(), "it is of another corpus");
  return std::make_shared<const OpenSidecar>(*std::move(file), std::move(header));
}

void SidecarStore::Remove(uint64_t corpus_id) {
  const std::lock_guard lock(mutex_);
  for (auto it = disk_bytes_.lower_bound({corpus_id, ""});
       it != disk_bytes_.end() && it->first.first == corpus_id;) {
    if (RemoveFile(PathOf(corpus_id, it->first.second)).ok()) {
      it = disk_bytes_.erase(it);
    } else {
      ++it;  // still on the disk, and counted
    }
  }
}

uint64_t SidecarStore::PhysicalBytes() const {
  const std::lock_guard lock(mutex_);
  uint64_t bytes = draft_bytes_;
  for (const auto& [key, disk_bytes] : disk_bytes_) bytes += disk_bytes;
  return bytes;
}

uint64_t SidecarStore::BytesOf(uint64_t corpus_id) const {
  const std::lock_guard lock(mutex_);
  uint64_t bytes = 0;
  for (auto it = disk_bytes_.lower_bound({corpus_id, ""});
       it != disk_bytes_.end() && it->first.first == corpus_id; ++it) {
    bytes += it->second;
  }
  return bytes;
}

}  // namespace corpusd
