// engine/model/mapped_file.h -- a whole file mapped read-only. The mapping lives as long as the
// object; spans into it must not outlive it. Immutable; any thread. Not for files that others
// shrink while they are mapped: touching a lost page raises SIGBUS.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "store/base/result.h"

namespace corpusd {

class MappedFile {
 public:
  // kNotFound, kPermissionDenied, kInvalidArgument (not a regular file) or kIoError, naming the
  // path.
  static Result<std::unique_ptr<MappedFile>> Open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const { return path_; }
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  MappedFile(std::string path, std::span<const std::byte> bytes)
      : path_(std::move(path)), bytes_(bytes) {}

  const std::string path_;
  const std::span<const std::byte> bytes_;
};

}  // namespace corpusd
