// daemon/http/source_files.h -- files that an HTTP client names and the daemon reads: only below
// the folders that the administrator allows, whatever links and races lead elsewhere; what was
// opened is what is checked. Folders are walked without following links; hidden and binary files
// are left out and counted. Blocks on the disk; one thread per object.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "store/base/result.h"

namespace corpusd {

class SourceFiles {
 public:
  static constexpr size_t kFilesMax = 100000;
  static constexpr size_t kPieceBytes = size_t{1} << 20;

  // roots: absolute folders. kPermissionDenied if there is none.
  static Result<SourceFiles> Open(const std::vector<std::string>& roots);

  // Adds a file, or the files of a folder in the order of their names. kPermissionDenied if it is
  // not below a root; kNotFound.
  Status Add(const std::string& path);
  // Calls back with each file's pieces in order, the last one marked; an empty file has one empty
  // piece. Stops with what the callback returns.
  using Piece = std::function<Status(const std::string& path, std::string content, bool last)>;
  Status Read(const Piece& piece);
  uint64_t skipped() const { return skipped_; }
  const std::vector<std::string>& paths() const { return paths_; }

 private:
  explicit SourceFiles(std::vector<std::string> roots) : roots_(std::move(roots)) {}
  bool BelowRoot(std::string_view path) const;
  Status AddFolder(const std::string& folder);
  Status ReadFile(const std::string& path, const Piece& piece);

  std::vector<std::string> roots_;  // as the kernel spells them
  std::vector<std::string> paths_;
  uint64_t skipped_ = 0;
};

}  // namespace corpusd
