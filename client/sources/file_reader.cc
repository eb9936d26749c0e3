#include "client/sources/file_reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace corpusd::sources {
namespace {

constexpr size_t kPieceBytes = size_t{1} << 20;

// Non-blocking, so that a FIFO put in a file's place between the look and the open cannot hang us.
int OpenForReading(const std::string& path, bool follow_link) {
  return open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | (follow_link ? 0 : O_NOFOLLOW));
}

}  // namespace

ClientError IoFailure(const std::string& what, const std::string& path, int error) {
  return {8, "io_error", what + " '" + path + "' failed: " + std::strerror(error)};
}

Descriptor::~Descriptor() {
  if (file_ >= 0) close(file_);
}

ClientResult<Descriptor> OpenRegularFile(const std::string& path, bool follow_link) {
  Descriptor file(OpenForReading(path, follow_link));
  if (file.get() < 0) return IoFailure("opening", path, errno);
  struct stat facts {};
  if (fstat(file.get(), &facts) != 0) return IoFailure("looking at", path, errno);
  if (!S_ISREG(facts.st_mode)) {
    return ClientError{8, "io_error", "'" + path + "' is no regular file any more"};
  }
  return file;
}

ClientResult<std::string> ReadSample(const std::string& path, bool follow_link, size_t bytes_max) {
  auto file = OpenRegularFile(path, follow_link);
  if (!file.ok()) return file.error();
  std::string sample(bytes_max, '\0');
  size_t filled = 0;
  while (filled < bytes_max) {
    const ssize_t got = read(file->get(), sample.data() + filled, bytes_max - filled);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return IoFailure("reading", path, errno);
    if (got == 0) break;
    filled += static_cast<size_t>(got);
  }
  sample.resize(filled);
  return sample;
}

ClientResult<Done> ReadDescriptor(int file, const std::string& name,
                                  const std::atomic<bool>* interrupted,
                                  const std::function<bool(std::string_view piece)>& on_piece) {
  std::string buffer(kPieceBytes, '\0');
  while (true) {
    const ssize_t got = read(file, buffer.data(), buffer.size());
    if (interrupted != nullptr && interrupted->load()) {
      return ClientError{kClientInterrupted, "interrupted", "interrupted while reading " + name};
    }
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return IoFailure("reading", name, errno);
    if (got == 0 || !on_piece({buffer.data(), static_cast<size_t>(got)})) return Done{};
  }
}

ClientResult<std::string> ReadSmallFile(const std::string& path, uint64_t bytes_max) {
  const Descriptor file(OpenForReading(path, true));
  if (file.get() < 0) {
    if (errno == ENOENT) return ClientError{1, "not_found", "'" + path + "' does not exist"};
    return IoFailure("opening", path, errno);
  }
  std::string text;
  auto done = ReadDescriptor(file.get(), path, nullptr, [&](std::string_view piece) {
    text += piece;
    return text.size() <= bytes_max;
  });
  if (!done.ok()) return done.error();
  if (text.size() > bytes_max) {
    return ClientError{kClientInvalidArgument, "invalid_argument",
                       "'" + path + "' is longer than " + std::to_string(bytes_max) + " bytes"};
  }
  return text;
}

}  // namespace corpusd::sources
