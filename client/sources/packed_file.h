// client/sources/packed_file.h -- PackedFile: the members of an archive (tar, plain or compressed,
// and zip) or the one text of a compressed file, in order and in pieces. The only user of
// libarchive. Names of members are labels: nothing is ever written to a disk. One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "client/client_error.h"
#include "client/sources/source_kind.h"

struct archive;

namespace corpusd::sources {

struct PackedMember {
  enum class Type : uint8_t { kFile, kDirectory, kLink, kSpecial };

  std::string name;  // as the archive says it, valid UTF-8, cut after 1,000 bytes; may be empty
  Type type = Type::kFile;
  bool encrypted = false;
};

class PackedFile {
 public:
  // file: open for reading, a regular file, which the caller keeps open and closes; path is for
  // messages. RETURNS "io_error" if it is no such file.
  static ClientResult<std::unique_ptr<PackedFile>> Open(int file, const std::string& path,
                                                        Packing packing);
  ~PackedFile();
  PackedFile(const PackedFile&) = delete;
  PackedFile& operator=(const PackedFile&) = delete;

  // RETURNS the next member, nothing after the last one, or "io_error": nothing more can be read.
  ClientResult<std::optional<PackedMember>> Next();
  // Of the member that Next gave. RETURNS the bytes read, 0 at its end, or "io_error": the rest of
  // this member is lost, the next one may be fine.
  ClientResult<size_t> Read(char* target, size_t bytes);

  // Bytes of the file itself that were read so far.
  uint64_t read_bytes() const;
  // Bytes that they were unpacked to so far, those of members passed over included where the
  // format makes us unpack them.
  uint64_t unpacked_bytes() const;

 private:
  struct Closer {
    void operator()(archive* reader) const;
  };

  PackedFile(std::unique_ptr<archive, Closer> reader, std::string path)
      : reader_(std::move(reader)), path_(std::move(path)) {}
  ClientError Broken() const;

  std::unique_ptr<archive, Closer> reader_;
  const std::string path_;
  uint64_t member_bytes_ = 0;  // read by Read, of all members
  // What the current block of the member still holds.
  const char* block_ = nullptr;
  size_t block_bytes_ = 0;
  int64_t offset_ = 0;  // in the member, after that block
};

}  // namespace corpusd::sources
