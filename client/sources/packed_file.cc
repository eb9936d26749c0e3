#include "client/sources/packed_file.h"

#include <archive.h>
#include <archive_entry.h>
#include <locale.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "client/wire/utf8.h"

namespace corpusd::sources {
namespace {

constexpr size_t kReadBytes = size_t{256} << 10;
constexpr size_t kNameBytesMax = 1000;

// libarchive gives names in the locale's charset, or not at all: while one of these lives, this
// thread's is UTF-8.
class Utf8Locale {
 public:
  Utf8Locale() : locale_(newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr)) {
    if (locale_ != nullptr) before_ = uselocale(locale_);
  }
  ~Utf8Locale() {
    if (locale_ == nullptr) return;
    uselocale(before_);
    freelocale(locale_);
  }
  Utf8Locale(const Utf8Locale&) = delete;
  Utf8Locale& operator=(const Utf8Locale&) = delete;

 private:
  const locale_t locale_;
  locale_t before_ = nullptr;
};

std::string NameOf(archive_entry* entry) {
  const char* name = archive_entry_pathname(entry);
  if (name == nullptr) name = archive_entry_pathname_utf8(entry);
  if (name == nullptr) return "";
  std::string text = name;
  if (text.size() > kNameBytesMax) {
    text.resize(kNameBytesMax);
    text += "...";
  }
  return ReplaceInvalidUtf8(text);
}

PackedMember::Type TypeOf(archive_entry* entry) {
  if (archive_entry_hardlink(entry) != nullptr) return PackedMember::Type::kLink;
  switch (archive_entry_filetype(entry)) {
    case AE_IFREG:
    case 0:  // the raw format, and zips that say nothing
      return PackedMember::Type::kFile;
    case AE_IFDIR:
      return PackedMember::Type::kDirectory;
    case AE_IFLNK:
      return PackedMember::Type::kLink;
    default:
      return PackedMember::Type::kSpecial;
  }
}

}  // namespace

void PackedFile::Closer::operator()(archive* reader) const { archive_read_free(reader); }

PackedFile::~PackedFile() = default;

ClientError PackedFile::Broken() const {
  const char* why = archive_error_string(reader_.get());
  return {8, "io_error",
          "unpacking '" + ReplaceInvalidUtf8(path_) +
              "' failed: " + (why == nullptr ? "no reason given" : ReplaceInvalidUtf8(why))};
}

ClientResult<std::unique_ptr<PackedFile>> PackedFile::Open(int file, const std::string& path,
                                                           Packing packing) {
  const Utf8Locale utf8;
  std::unique_ptr<archive, Closer> reader(archive_read_new());
  if (reader == nullptr) return ClientError{8, "io_error", "out of memory for '" + path + "'"};
  archive* raw = reader.get();
  archive_read_support_filter_gzip(raw);
  archive_read_support_filter_bzip2(raw);
  archive_read_support_filter_xz(raw);
  archive_read_support_filter_zstd(raw);
  if (packing == Packing::kArchive) {
    archive_read_support_format_tar(raw);
    archive_read_support_format_zip(raw);
  } else {
    archive_read_support_format_raw(raw);
  }
  archive_read_support_format_empty(raw);
  std::unique_ptr<PackedFile> packed(new PackedFile(std::move(reader), path));
  if (archive_read_open_fd(raw, file, kReadBytes) != ARCHIVE_OK) return packed->Broken();
  return packed;
}

ClientResult<std::optional<PackedMember>> PackedFile::Next() {
  const Utf8Locale utf8;
  archive_entry* entry = nullptr;
  const int outcome = archive_read_next_header(reader_.get(), &entry);
  block_bytes_ = 0;
  offset_ = 0;
  if (outcome == ARCHIVE_EOF) return std::optional<PackedMember>();
  if (outcome != ARCHIVE_OK && outcome != ARCHIVE_WARN) return Broken();
  PackedMember member;
  member.name = NameOf(entry);
  member.type = TypeOf(entry);
  member.encrypted = archive_entry_is_encrypted(entry) > 0;
  return std::optional<PackedMember>(std::move(member));
}

ClientResult<size_t> PackedFile::Read(char* target, size_t bytes) {
  while (block_bytes_ == 0) {
    const void* block = nullptr;
    size_t size = 0;
    int64_t offset = 0;
    const int outcome = archive_read_data_block(reader_.get(), &block, &size, &offset);
    if (outcome == ARCHIVE_EOF) return size_t{0};
    if (outcome != ARCHIVE_OK && outcome != ARCHIVE_WARN) return Broken();
    // A hole would be read as zeros without end; text has none.
    if (offset != offset_) {
      return ClientError{8, "io_error",
                         "unpacking '" + ReplaceInvalidUtf8(path_) + "' met a sparse file"};
    }
    block_ = static_cast<const char*>(block);
    block_bytes_ = size;
    offset_ = offset + static_cast<int64_t>(size);
  }
  const size_t taken = std::min(bytes, block_bytes_);
  std::memcpy(target, block_, taken);
  block_ += taken;
  block_bytes_ -= taken;
  member_bytes_ += taken;
  return taken;
}

uint64_t PackedFile::read_bytes() const {
  return static_cast<uint64_t>(std::max<int64_t>(archive_filter_bytes(reader_.get(), -1), 0));
}

uint64_t PackedFile::unpacked_bytes() const {
  const int64_t filtered = std::max<int64_t>(archive_filter_bytes(reader_.get(), 0), 0);
  return std::max(member_bytes_, static_cast<uint64_t>(filtered));
}

}  // namespace corpusd::sources
