#include "engine/model/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace corpusd {
namespace {

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  const int fd_;
};

Status OpenError(const std::string& path, int error) {
  const std::string text = path + ": cannot be opened: " + std::strerror(error);
  if (error == ENOENT || error == ENOTDIR) return NotFoundError(text);
  if (error == EACCES || error == EPERM) return {StatusCode::kPermissionDenied, text};
  return IoError(text);
}

}  // namespace

Result<std::unique_ptr<MappedFile>> MappedFile::Open(const std::string& path) {
  // O_NONBLOCK: opening a FIFO must not wait for a writer; it means nothing for regular files.
  const Descriptor source(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (source.get() < 0) return OpenError(path, errno);
  struct stat facts {};
  if (fstat(source.get(), &facts) != 0) return OpenError(path, errno);
  if (!S_ISREG(facts.st_mode)) return InvalidArgumentError(path + ": is not a regular file");
  const auto size = static_cast<size_t>(facts.st_size);
  std::unique_ptr<MappedFile> mapped;
  if (size == 0) {
    mapped.reset(new MappedFile(path, {}));
    return mapped;
  }
  void* const start = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, source.get(), 0);
  if (start == MAP_FAILED) {
    return IoError(path + ": cannot be mapped: " + std::strerror(errno));
  }
  mapped.reset(new MappedFile(path, {static_cast<const std::byte*>(start), size}));
  return mapped;
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) {
    munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
  }
}

}  // namespace corpusd
