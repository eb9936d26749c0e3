#include "daemon/net/socket_file.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <utility>

namespace corpusd {
namespace {

constexpr int kBacklog = 128;

Status SystemError(const std::string& what, int error) {
  return IoError(what + ": " + std::strerror(error));
}

Result<sockaddr_un> AddressOf(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    return InvalidArgumentError("socket path '" + path + "' is too long: the system allows " +
                                std::to_string(sizeof(address.sun_path) - 1) + " bytes");
  }
  path.copy(address.sun_path, path.size());
  return address;
}

// RETURNS Ok if the path is free or a dead daemon's socket.
Status CheckReplaceable(const std::string& path, const sockaddr_un& address) {
  struct stat entry {};
  if (lstat(path.c_str(), &entry) != 0) {
    if (errno == ENOENT) return OkStatus();
    return SystemError("cannot look at '" + path + "'", errno);
  }
  if (!S_ISSOCK(entry.st_mode)) {
    return FailedPreconditionError("'" + path + "' is no socket; it is left as it is");
  }
  const int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (probe < 0) return SystemError("cannot make a socket", errno);
  const int connected =
      connect(probe, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  const int error = errno;
  close(probe);
  if (connected == 0 || error == EAGAIN) {
    return AlreadyExistsError("another daemon listens on '" + path +
                              "'; stop it or give another --socket");
  }
  if (error == ECONNREFUSED || error == ENOENT) return OkStatus();
  return SystemError("cannot tell whether a daemon listens on '" + path + "'", error);
}

}  // namespace

SocketFile::SocketFile(SocketFile&& other) noexcept
    : path_(std::exchange(other.path_, {})),
      descriptor_(std::exchange(other.descriptor_, -1)),
      device_(other.device_),
      inode_(other.inode_) {}

SocketFile::~SocketFile() {
  if (descriptor_ >= 0) close(descriptor_);
  struct stat entry {};
  if (path_.empty() || lstat(path_.c_str(), &entry) != 0) return;
  if (entry.st_dev == device_ && entry.st_ino == inode_) unlink(path_.c_str());
}

int SocketFile::ReleaseDescriptor() { return std::exchange(descriptor_, -1); }

Result<SocketFile> SocketFile::Listen(const std::string& path, unsigned mode) {
  const std::string making = path + "." + std::to_string(getpid());
  ASSIGN_OR_RETURN(const sockaddr_un address, AddressOf(path));
  ASSIGN_OR_RETURN(const sockaddr_un making_address, AddressOf(making));
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  std::error_code error;
  if (!folder.empty() && !std::filesystem::exists(folder, error)) {
    if (!std::filesystem::create_directories(folder, error) && error) {
      return IoError("cannot make folder '" + folder.string() + "': " + error.message());
    }
    std::filesystem::permissions(folder, std::filesystem::perms{0750}, error);
  }
  RETURN_IF_ERROR(CheckReplaceable(path, address));
  const int descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (descriptor < 0) return SystemError("cannot make a socket", errno);
  SocketFile file(making, descriptor);
  unlink(making.c_str());
  struct stat entry {};
  if (bind(descriptor, reinterpret_cast<const sockaddr*>(&making_address),
           sizeof(making_address)) != 0 ||
      lstat(making.c_str(), &entry) != 0) {
    return SystemError("cannot make socket '" + making + "'", errno);
  }
  file.device_ = entry.st_dev;
  file.inode_ = entry.st_ino;
  // Before listen() nobody can connect, so the permissions are never wider than asked.
  if (chmod(making.c_str(), static_cast<mode_t>(mode)) != 0 || listen(descriptor, kBacklog) != 0 ||
      rename(making.c_str(), path.c_str()) != 0) {
    return SystemError("cannot listen on '" + path + "'", errno);
  }
  file.path_ = path;
  return file;
}

}  // namespace corpusd
