// daemon/net/socket_file.h -- the listening Unix socket as a file: made under a temporary name with
// its final permissions, then renamed into place, so that nobody ever meets half of it. A file left
// by a dead daemon is replaced; one that answers is refused. Owns the descriptor and the file.
#pragma once

#include <sys/types.h>

#include <string>

#include "store/base/result.h"

namespace corpusd {

class SocketFile {
 public:
  // Makes missing folders on the way (0750). kAlreadyExists if a daemon listens there,
  // kFailedPrecondition if the path is something else than a socket, kIoError otherwise.
  static Result<SocketFile> Listen(const std::string& path, unsigned mode);
  // A descriptor that listens already; its file is somebody else's and stays.
  static SocketFile Adopt(int descriptor) { return SocketFile({}, descriptor); }
  SocketFile(SocketFile&& other) noexcept;
  SocketFile& operator=(SocketFile&&) = delete;
  // Removes the file if it is still this socket's, and closes the descriptor unless it was
  // released.
  ~SocketFile();

  // Gives the descriptor away; the file stays this object's.
  int ReleaseDescriptor();

 private:
  SocketFile(std::string path, int descriptor) : path_(std::move(path)), descriptor_(descriptor) {}

  std::string path_;
  int descriptor_;
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

}  // namespace corpusd
