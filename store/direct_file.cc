#include "store/direct_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <vector>

namespace corpusd {
namespace {

std::atomic<FileWatcher*>& Watcher() {
  static std::atomic<FileWatcher*> watcher{nullptr};
  return watcher;
}

Status ErrnoStatus(const std::string& what, int error) {
  const std::string text = what + ": " + std::strerror(error);
  if (error == ENOENT) return NotFoundError(text);
  if (error == EEXIST) return AlreadyExistsError(text);
  if (error == ENOSPC || error == EDQUOT) return ResourceExhaustedError(text);
  if (error == EOPNOTSUPP || error == ENOSYS) return UnimplementedError(text);
  return IoError(text);
}

// Some file systems (older tmpfs, some network ones) have no direct I/O.
int OpenDirect(const std::string& path, int flags) {
  const int fd = open(path.c_str(), flags | O_DIRECT | O_CLOEXEC, 0640);
  return fd >= 0 || errno != EINVAL ? fd : open(path.c_str(), flags | O_CLOEXEC, 0640);
}

// Moves the front of parts forward by so many bytes.
void Advance(std::vector<iovec>* parts, uint64_t bytes) {
  size_t whole = 0;
  while (whole < parts->size() && bytes >= (*parts)[whole].iov_len) {
    bytes -= (*parts)[whole++].iov_len;
  }
  parts->erase(parts->begin(), parts->begin() + static_cast<ptrdiff_t>(whole));
  if (parts->empty()) return;
  parts->front().iov_base = static_cast<std::byte*>(parts->front().iov_base) + bytes;
  parts->front().iov_len -= bytes;
}

uint64_t TotalBytes(std::span<const iovec> parts) {
  uint64_t bytes = 0;
  for (const iovec& part : parts) bytes += part.iov_len;
  return bytes;
}

}  // namespace

PageBuffer::PageBuffer(uint64_t pages)
    : memory_(std::make_unique_for_overwrite<std::byte[]>((pages + 1) * kDirectPage)),
      bytes_(pages * kDirectPage) {
  const auto address = reinterpret_cast<uintptr_t>(memory_.get());
  aligned_ = memory_.get() + (kDirectPage - address % kDirectPage) % kDirectPage;
}

Result<std::shared_ptr<DirectFile>> DirectFile::Open(const std::string& path) {
  const int fd = OpenDirect(path, O_RDWR);
  if (fd < 0) return ErrnoStatus("opening " + path, errno);
  return std::shared_ptr<DirectFile>(new DirectFile(path, fd));
}

Result<std::shared_ptr<DirectFile>> DirectFile::Create(const std::string& path) {
  if (FileWatcher* const watcher = Watcher()) RETURN_IF_ERROR(watcher->BeforeCreate(path));
  const int fd = OpenDirect(path, O_RDWR | O_CREAT | O_EXCL);
  if (fd < 0) return ErrnoStatus("creating " + path, errno);
  return std::shared_ptr<DirectFile>(new DirectFile(path, fd));
}

DirectFile::~DirectFile() { close(fd_); }

Result<uint64_t> DirectFile::Read(uint64_t offset, std::span<const iovec> parts) const {
  std::vector<iovec> left(parts.begin(), parts.end());
  uint64_t done = 0;
  while (!left.empty()) {
    const ssize_t got =
        preadv(fd_, left.data(), static_cast<int>(left.size()), static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus("reading " + path_, errno);
    done += static_cast<uint64_t>(got);
    // A part of a page is the end of the file; direct I/O could not go on from there either.
    if (got == 0 || got % static_cast<ssize_t>(kDirectPage) != 0) break;
    Advance(&left, static_cast<uint64_t>(got));
  }
  return done;
}

Status DirectFile::Write(uint64_t offset, std::span<const iovec> parts) {
  if (FileWatcher* const watcher = Watcher()) {
    RETURN_IF_ERROR(watcher->BeforeWrite(path_, offset, TotalBytes(parts)));
  }
  std::vector<iovec> left(parts.begin(), parts.end());
  uint64_t done = 0;
  while (!left.empty()) {
    const ssize_t put =
        pwritev(fd_, left.data(), static_cast<int>(left.size()), static_cast<off_t>(offset + done));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return ErrnoStatus("writing to " + path_, errno);
    if (put == 0) return IoError("writing to " + path_ + ": nothing was taken");
    done += static_cast<uint64_t>(put);
    Advance(&left, static_cast<uint64_t>(put));
  }
  return OkStatus();
}

Status DirectFile::Allocate(uint64_t offset, uint64_t bytes) {
  if (FileWatcher* const watcher = Watcher()) {
    RETURN_IF_ERROR(watcher->BeforeWrite(path_, offset, 0));
  }
  const int result =
      fallocate(fd_, 0, static_cast<off_t>(offset), static_cast<off_t>(bytes)) == 0 ? 0 : errno;
  if (result == 0 || result == EOPNOTSUPP) return OkStatus();
  return ErrnoStatus("taking space for " + path_, result);
}

Status DirectFile::Sync() {
  if (FileWatcher* const watcher = Watcher()) RETURN_IF_ERROR(watcher->BeforeSync(path_));
  if (fdatasync(fd_) == 0) return OkStatus();
  return ErrnoStatus("syncing " + path_, errno);
}

Status DirectFile::Punch(uint64_t offset, uint64_t bytes) {
  if (fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                static_cast<off_t>(bytes)) == 0) {
    return OkStatus();
  }
  return ErrnoStatus("giving back space of " + path_, errno);
}

Status DirectFile::Truncate(uint64_t bytes) {
  if (ftruncate(fd_, static_cast<off_t>(bytes)) == 0) return OkStatus();
  return ErrnoStatus("cutting " + path_, errno);
}

Result<uint64_t> DirectFile::Bytes() const {
  struct stat info {};
  if (fstat(fd_, &info) != 0) return ErrnoStatus("looking at " + path_, errno);
  return static_cast<uint64_t>(info.st_size);
}

Result<uint64_t> DirectFile::DiskBytes() const {
  struct stat info {};
  if (fstat(fd_, &info) != 0) return ErrnoStatus("looking at " + path_, errno);
  return uint64_t{512} * static_cast<uint64_t>(info.st_blocks);
}

Status SyncFolder(const std::string& folder) {
  if (FileWatcher* const watcher = Watcher()) RETURN_IF_ERROR(watcher->BeforeSyncFolder(folder));
  const int fd = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus("opening " + folder, errno);
  const int error = fsync(fd) == 0 ? 0 : errno;
  close(fd);
  return error == 0 ? OkStatus() : ErrnoStatus("syncing " + folder, error);
}

Status RemoveFile(const std::string& path) {
  if (FileWatcher* const watcher = Watcher()) RETURN_IF_ERROR(watcher->BeforeRemove(path));
  if (unlink(path.c_str()) == 0 || errno == ENOENT) return OkStatus();
  return ErrnoStatus("removing " + path, errno);
}

Status RenameFile(const std::string& from, const std::string& to) {
  if (FileWatcher* const watcher = Watcher()) RETURN_IF_ERROR(watcher->BeforeRename(from, to));
  if (rename(from.c_str(), to.c_str()) == 0) return OkStatus();
  return ErrnoStatus("renaming " + from, errno);
}

void SetFileWatcherForTests(FileWatcher* watcher) { Watcher() = watcher; }

}  // namespace corpusd
