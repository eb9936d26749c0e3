#include "tests/support/corrupt_block.h"

#include <filesystem>
#include <fstream>
#include <iterator>

#include "store/block_header.h"
#include "store/catalog.h"
#include "store/folder_lock.h"

namespace corpusd {
namespace {

constexpr size_t kDigestOffset = 28;  // in the block header, FORMAT.md
constexpr size_t kPageBytes = 4096;

// RETURNS how many copies in the file were damaged.
int FlipInFile(const std::filesystem::path& path, const Digest& digest, uint64_t payload_byte) {
  std::ifstream input(path, std::ios::binary);
  std::string bytes{std::istreambuf_iterator<char>(input), {}};
  input.close();
  const std::string_view needle(reinterpret_cast<const char*>(digest.bytes.data()),
                                digest.bytes.size());
  int damaged = 0;
  for (size_t at = bytes.find(needle); at != std::string::npos; at = bytes.find(needle, at + 1)) {
    if (at < kDigestOffset) continue;
    const size_t start = at - kDigestOffset;
    const auto header = DecodeBlockHeader(std::as_bytes(std::span(bytes)).subspan(start));
    if (!header.ok() || header->digest != digest) continue;
    // The payload begins at the next page.
    const size_t page = (start + header->EncodedBytes() + kPageBytes - 1) / kPageBytes * kPageBytes;
    const size_t target = page + payload_byte % header->payload_bytes;
    bytes[target] = static_cast<char>(bytes[target] ^ 1);
    std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(static_cast<std::streamoff>(target));
    file.put(bytes[target]);
    damaged += file.good() ? 1 : 0;
  }
  return damaged;
}

// RETURNS whether a copy was damaged.
bool FlipInFolder(const std::string& data_dir, const Digest& digest, uint64_t payload_byte) {
  int damaged = 0;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(data_dir + "/segments", error)) {
    damaged += FlipInFile(entry, digest, payload_byte);
  }
  return damaged > 0;
}

}  // namespace

Status CorruptBlock(const std::string& data_dir, const std::string& corpus, uint64_t block,
                    uint64_t payload_byte) {
  ASSIGN_OR_RETURN(const auto lock, FolderLock::Acquire(data_dir));
  Digest digest;
  {
    ASSIGN_OR_RETURN(const auto catalog, Catalog::Open(data_dir + "/catalog"));
    const CorpusRecord* const record = catalog->Find(corpus);
    if (record == nullptr || block >= record->chain.size()) {
      return NotFoundError("corpus '" + corpus + "' has no block " + std::to_string(block));
    }
    digest = record->chain[block];
  }
  if (FlipInFolder(data_dir, digest, payload_byte)) return OkStatus();
  return NotFoundError("block " + std::to_string(block) + " of corpus '" + corpus +
                       "' is in no file of " + data_dir + "/segments");
}

Status CorruptDigest(const std::string& data_dir, const Digest& digest, uint64_t payload_byte) {
  ASSIGN_OR_RETURN(const auto lock, FolderLock::Acquire(data_dir));
  if (FlipInFolder(data_dir, digest, payload_byte)) return OkStatus();
  return NotFoundError("block " + digest.Hex() + " is in no file of " + data_dir + "/segments");
}

}  // namespace corpusd
