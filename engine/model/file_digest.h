// engine/model/file_digest.h -- the SHA-256 of a file's bytes, remembered between runs so that a
// start does not read gigabytes again; a small file is read each time. The memory is keyed by path,
// size, modification time and inode; whoever rewrites a file and restores all four defeats it. Any
// thread; several processes may share a cache folder.
#pragma once

#include <cstdint>
#include <string>

#include "store/base/result.h"

namespace corpusd {

// The smallest file that is remembered: less takes milliseconds.
inline constexpr int64_t kRememberedFileBytesMin = 1 << 20;

// cache_dir: an existing folder for the small cache file, or "" for none. A cache that cannot be
// read or written costs time only. RETURNS 64 hexadecimal digits; kNotFound, kPermissionDenied or
// kIoError if the file cannot be read; kAborted if it changed meanwhile.
Result<std::string> FileDigestHex(const std::string& path, const std::string& cache_dir);

}  // namespace corpusd
