// client/sources/source_walker.h -- which files an ingest reads. Directories are walked in byte
// order of their names; text files, archives and compressed files only; .gitignore files are
// honoured, those above the walked directory up to the repository's root included; .git is left
// out; symbolic links inside a directory are never followed. What the user names outright is taken
// even if ignored, and through a link. One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "client/client_error.h"
#include "client/sources/skip_log.h"
#include "client/sources/source_kind.h"

namespace corpusd::sources {

// What is looked at to tell text from binary.
inline constexpr size_t kSampleBytes = 8192;

struct SourceFile {
  std::string path;          // to open
  std::string name;          // what the daemon records: path made tidy, valid UTF-8
  uint64_t bytes = 0;        // when walked; reading goes to the end, whatever it is by then
  bool follow_link = false;  // named outright
  Packing packing = Packing::kNone;
};

struct SourceList {
  std::vector<SourceFile> files;
  uint64_t bytes = 0;
  SkipLog skipped;
  std::vector<std::string> warnings;  // one line for each thing that could not be read
};

// RETURNS "not_found" for a path that is not there, "invalid_argument" for a FIFO or device named
// outright.
ClientResult<SourceList> ListSources(const std::vector<std::string>& paths);

}  // namespace corpusd::sources
