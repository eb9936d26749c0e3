// store/direct_file.h -- a file of whole 4 KiB pages, read and written past the page cache
// (O_DIRECT) where the file system can, through it where not. Offsets, lengths and addresses are
// multiples of kDirectPage. Thread-safe: reads and writes carry their own offset. Knows no layout.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "store/base/result.h"

namespace corpusd {

inline constexpr uint64_t kDirectPage = 4096;

constexpr uint64_t PagesOf(uint64_t bytes) { return (bytes + kDirectPage - 1) / kDirectPage; }
inline bool IsPageAligned(const void* memory) {
  return reinterpret_cast<uintptr_t>(memory) % kDirectPage == 0;
}

// Uninitialised memory that starts at a page.
class PageBuffer {
 public:
  explicit PageBuffer(uint64_t pages);
  std::byte* data() { return aligned_; }
  const std::byte* data_at(uint64_t offset) const { return aligned_ + offset; }
  std::span<std::byte> bytes() { return {aligned_, bytes_}; }

 private:
  std::unique_ptr<std::byte[]> memory_;
  std::byte* aligned_;
  uint64_t bytes_;
};

class DirectFile {
 public:
  // kNotFound if there is no such file.
  static Result<std::shared_ptr<DirectFile>> Open(const std::string& path);
  // kAlreadyExists if there is one. The name is durable after SyncFolder.
  static Result<std::shared_ptr<DirectFile>> Create(const std::string& path);
  ~DirectFile();
  DirectFile(const DirectFile&) = delete;
  DirectFile& operator=(const DirectFile&) = delete;

  // RETURNS how many bytes were read: fewer than asked only at the end of the file.
  Result<uint64_t> Read(uint64_t offset, std::span<const iovec> parts) const;
  // kResourceExhausted: the disk is full. After an error the range holds anything.
  Status Write(uint64_t offset, std::span<const iovec> parts);
  // Takes the disk space of the range now, so that writing to it cannot fill the disk. Ok without
  // effect where the file system cannot.
  Status Allocate(uint64_t offset, uint64_t bytes);
  // What was written is on the disk when it returns (fdatasync).
  Status Sync();
  // Gives the range's space back; it reads as zeros. kUnimplemented: the file system cannot.
  Status Punch(uint64_t offset, uint64_t bytes);
  Status Truncate(uint64_t bytes);
  Result<uint64_t> Bytes() const;
  Result<uint64_t> DiskBytes() const;  // what it takes on the disk
  const std::string& path() const { return path_; }

 private:
  DirectFile(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}
  const std::string path_;
  const int fd_;
};

// Makes names created in the folder, and removals from it, durable.
Status SyncFolder(const std::string& folder);
Status RemoveFile(const std::string& path);
// Replaces what is there. The name is durable after SyncFolder.
Status RenameFile(const std::string& from, const std::string& to);

// For tests: told before each change of a file, and may refuse it; null: nobody.
class FileWatcher {
 public:
  virtual ~FileWatcher() = default;
  virtual Status BeforeCreate(const std::string& path) = 0;
  virtual Status BeforeWrite(const std::string& path, uint64_t offset, uint64_t bytes) = 0;
  // Both also stand for what they make durable, once they return Ok.
  virtual Status BeforeSync(const std::string& path) = 0;
  virtual Status BeforeSyncFolder(const std::string& folder) = 0;
  virtual Status BeforeRemove(const std::string& path) = 0;
  virtual Status BeforeRename(const std::string& from, const std::string& to) = 0;
};
void SetFileWatcherForTests(FileWatcher* watcher);

}  // namespace corpusd
