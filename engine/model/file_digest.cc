#include "engine/model/file_digest.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <vector>

#include "engine/model/mapped_file.h"
#include "store/base/sha256.h"

namespace corpusd {
namespace {

constexpr size_t kDigestHexLength = 64;

// What tells that a file is still the same, on one line.
struct FileFacts {
  std::string line;
  int64_t bytes = 0;
};

Result<FileFacts> DescribeFile(const std::string& path) {
  struct stat facts {};
  if (stat(path.c_str(), &facts) != 0) {
    const std::string text = path + ": cannot be examined: " + std::strerror(errno);
    return errno == ENOENT || errno == ENOTDIR ? NotFoundError(text) : IoError(text);
  }
  return FileFacts{std::to_string(facts.st_size) + " " + std::to_string(facts.st_mtim.tv_sec) +
                       "." + std::to_string(facts.st_mtim.tv_nsec) + " " +
                       std::to_string(facts.st_dev) + ":" + std::to_string(facts.st_ino),
                   facts.st_size};
}

// One small file per hashed path, so that processes never rewrite each other's entries.
std::string CachePath(const std::string& path, const std::string& cache_dir) {
  Sha256 hash;
  hash.Update(std::string_view(path));
  return cache_dir + "/sha256-" + HexText(hash.Finish()).substr(0, 32);
}

// Line 1: the facts; line 2: the digest; line 3: the path, for people who look.
std::string ReadCache(const std::string& cache_path, const std::string& facts) {
  std::ifstream file(cache_path);
  std::string line;
  if (!std::getline(file, line) || line != facts) return "";
  if (!std::getline(file, line) || line.size() != kDigestHexLength) return "";
  if (line.find_first_not_of("0123456789abcdef") != std::string::npos) return "";
  return line;
}

// Renamed into place, so that a reader sees the old entry or the new one.
void WriteCache(const std::string& cache_path, const std::string& facts, const std::string& digest,
                const std::string& path) {
  const std::string draft = cache_path + "." + std::to_string(getpid());
  std::error_code ignored;
  {
    std::ofstream file(draft, std::ios::trunc);
    file << facts << "\n" << digest << "\n" << path << "\n";
    file.close();
    if (file.fail()) {
      std::filesystem::remove(draft, ignored);
      return;
    }
  }
  std::filesystem::rename(draft, cache_path, ignored);
  if (ignored) std::filesystem::remove(draft, ignored);
}

}  // namespace

Result<std::string> FileDigestHex(const std::string& path, const std::string& cache_dir) {
  std::error_code ignored;
  std::string absolute = std::filesystem::absolute(path, ignored).lexically_normal().string();
  if (absolute.empty()) absolute = path;
  ASSIGN_OR_RETURN(const FileFacts facts, DescribeFile(path));
  const bool remembered = !cache_dir.empty() && facts.bytes >= kRememberedFileBytesMin;
  const std::string cache_path = remembered ? CachePath(absolute, cache_dir) : "";
  if (remembered) {
    std::string cached = ReadCache(cache_path, facts.line);
    if (!cached.empty()) return cached;
  }
  ASSIGN_OR_RETURN(const auto file, MappedFile::Open(path));
  Sha256 hash;
  hash.Update(file->bytes());
  const std::string digest = HexText(hash.Finish());
  ASSIGN_OR_RETURN(const FileFacts facts_after, DescribeFile(path));
  if (facts_after.line != facts.line) {
    return Status(StatusCode::kAborted, path + ": changed while its SHA-256 was computed");
  }
  if (remembered) WriteCache(cache_path, facts.line, digest, absolute);
  return digest;
}

}  // namespace corpusd
