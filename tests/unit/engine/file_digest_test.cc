#include "engine/model/file_digest.h"

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>

#include "tests/support/temp_dir.h"
#include "tests/support/test_paths.h"

namespace corpusd {
namespace {

// SHA-256 of "abc" (FIPS 180-4's example) and of nothing.
constexpr const char* kAbc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
constexpr const char* kEmpty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

// Just large enough to be remembered; the text is at its end.
std::string Large(const std::string& end) {
  return std::string(kRememberedFileBytesMin - end.size(), '.') + end;
}

std::string TheOnlyFileIn(const std::string& folder) {
  std::string found;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    EXPECT_TRUE(found.empty()) << "more than one file in " << folder;
    found = entry.path().string();
  }
  return found;
}

TEST(FileDigest, WithoutACache) {
  const TempDir dir;
  EXPECT_EQ(*FileDigestHex(dir.Write("abc", "abc"), ""), kAbc);
  EXPECT_EQ(*FileDigestHex(dir.Write("nothing", ""), ""), kEmpty);
  EXPECT_EQ(FileDigestHex(dir.File("absent"), "").status().code(), StatusCode::kNotFound);
  EXPECT_FALSE(FileDigestHex(dir.path(), "").ok());
}

TEST(FileDigest, AnUnchangedFileIsNotReadAgain) {
  const TempDir dir;
  const TempDir cache;
  const std::string path = dir.Write("large", Large("abc"));
  const std::string digest = *FileDigestHex(path, "");
  EXPECT_EQ(*FileDigestHex(path, cache.path()), digest);
  // A forged memory shows that it is used.
  std::string memory = ReadWholeFile(TheOnlyFileIn(cache.path()));
  const std::string forged(64, 'f');
  ASSERT_NE(memory.find(digest), std::string::npos);
  memory.replace(memory.find(digest), forged.size(), forged);
  std::ofstream(TheOnlyFileIn(cache.path()), std::ios::trunc) << memory;
  EXPECT_EQ(*FileDigestHex(path, cache.path()), forged);
}

TEST(FileDigest, AChangedFileIsReadAgain) {
  const TempDir dir;
  const TempDir cache;
  const std::string path = dir.Write("file", Large("abc"));
  const std::string digest = *FileDigestHex(path, "");
  dir.Write("file", Large("xyz"));
  const std::string before = *FileDigestHex(path, cache.path());
  dir.Write("file", Large("abc"));  // same size
  std::filesystem::last_write_time(
      path, std::filesystem::file_time_type::clock::now() + std::chrono::hours(1));
  EXPECT_NE(before, digest);
  EXPECT_EQ(*FileDigestHex(path, cache.path()), digest);
  // A file moved into its place has another inode, even with the same size and time.
  const auto time = std::filesystem::last_write_time(path);
  dir.Write("new", Large("abd"));
  std::filesystem::last_write_time(dir.File("new"), time);
  std::filesystem::rename(dir.File("new"), path);
  EXPECT_NE(*FileDigestHex(path, cache.path()), digest);
}

TEST(FileDigest, ABrokenCacheCostsOnlyTime) {
  const TempDir dir;
  const TempDir cache;
  const std::string path = dir.Write("large", Large("abc"));
  const std::string digest = *FileDigestHex(path, "");
  EXPECT_EQ(*FileDigestHex(path, cache.File("no/such/folder")), digest);
  ASSERT_TRUE(FileDigestHex(path, cache.path()).ok());
  const std::string memory_path = TheOnlyFileIn(cache.path());
  const std::string memory = ReadWholeFile(memory_path);
  for (size_t size = 0; size + 1 < memory.size(); ++size) {
    std::ofstream(memory_path, std::ios::trunc) << memory.substr(0, size);
    EXPECT_EQ(*FileDigestHex(path, cache.path()), digest) << "cache cut to " << size;
  }
}

TEST(FileDigest, ASmallFileLeavesNothingInTheCache) {
  const TempDir dir;
  const TempDir cache;
  EXPECT_EQ(*FileDigestHex(dir.Write("abc", "abc"), cache.path()), kAbc);
  EXPECT_TRUE(std::filesystem::is_empty(cache.path()));
}

}  // namespace
}  // namespace corpusd
