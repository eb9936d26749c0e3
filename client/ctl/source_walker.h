// client/ctl/source_walker.h -- which files an ingest reads, and reading them. Directories are
// walked in byte order of their names; text files only; .gitignore files are honoured, those above
// the walked directory up to the repository's root included; .git is left out; symbolic links
// inside a directory are never followed. What the user names outright is taken even if ignored, and
// through a link. One thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "client/client_error.h"

namespace corpusd::ctl {

struct SourceFile {
  std::string path;          // to open
  std::string name;          // what the daemon records: path made tidy, valid UTF-8
  uint64_t bytes = 0;        // when walked; reading goes to the end, whatever it is by then
  bool follow_link = false;  // named outright
};

struct SourceList {
  std::vector<SourceFile> files;
  uint64_t bytes = 0;
  uint64_t binary_files = 0;
  uint64_t unreadable_files = 0;  // directories too
  uint64_t special_files = 0;     // FIFOs, sockets, devices
  uint64_t links = 0;
  uint64_t ignored = 0;  // files, and directories counted as one
  uint64_t empty_files = 0;
  std::vector<std::string> warnings;  // one line for each thing that could not be read

  uint64_t skipped_files() const { return binary_files + unreadable_files + special_files; }
};

// RETURNS "not_found" for a path that is not there, "invalid_argument" for a FIFO or device named
// outright.
ClientResult<SourceList> ListSources(const std::vector<std::string>& paths);

// "skipped 3 binary files, 1 unreadable, 2 links"; empty if nothing was.
std::string DescribeSkipped(const SourceList& sources);

// Calls on_piece with the file's bytes in order, at most 1 MiB each, until it returns false.
// RETURNS "io_error" if the file cannot be opened or read, or is no regular file any more.
ClientResult<Done> ReadSource(const SourceFile& source,
                              const std::function<bool(std::string_view piece)>& on_piece);
// The same for a file descriptor that the caller opened and closes; name is for the error text. A
// signal that cuts a wait short and sets *interrupted (which may be null) ends it with
// "interrupted".
ClientResult<Done> ReadDescriptor(int file, const std::string& name,
                                  const std::atomic<bool>* interrupted,
                                  const std::function<bool(std::string_view piece)>& on_piece);

// The whole of a small file, such as a preamble. RETURNS "not_found", "io_error", or
// "invalid_argument" when it is longer than bytes_max.
ClientResult<std::string> ReadSmallFile(const std::string& path, uint64_t bytes_max);

}  // namespace corpusd::ctl
