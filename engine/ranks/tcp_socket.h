// engine/ranks/tcp_socket.h -- a stream socket and the few blocking steps that come before a job's
// traffic: listening, connecting again until the other rank is up, greeting. POSIX sockets: Asio
// stays in daemon/net, and a rank needs no more than poll. Each object has one owner.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "store/base/result.h"

namespace corpusd {

class Socket {
 public:
  Socket() = default;
  explicit Socket(int fd) : fd_(fd) {}
  Socket(Socket&& other) noexcept : fd_(other.Release()) {}
  Socket& operator=(Socket&& other) noexcept;
  ~Socket() { Close(); }

  int fd() const { return fd_; }
  bool open() const { return fd_ >= 0; }
  void Close();

 private:
  int Release() {
    const int fd = fd_;
    fd_ = -1;
    return fd;
  }

  int fd_ = -1;
};

using Deadline = std::chrono::steady_clock::time_point;

// Two ends of one stream within this process.
Result<std::pair<Socket, Socket>> MakeSocketPair();
// Listens at "host:port"; port 0 takes a free one. bound: the address with its port.
Result<Socket> ListenTcp(const std::string& address, std::string* bound);
// kDeadlineExceeded if nobody has connected by then.
Result<Socket> AcceptTcp(const Socket& listener, Deadline deadline);
// Connects to "host:port", again until somebody listens there: once at least, and no longer than
// the deadline. kInvalidArgument for what is no address.
Result<Socket> ConnectTcp(const std::string& address, Deadline deadline);

// Whether something can be received, such as the other end's closing, by then.
bool AwaitBytes(const Socket& socket, Deadline deadline);
// Whether the other end has closed or broken off the connection; what came before may be there.
bool HasClosed(const Socket& socket);
// All bytes, by the deadline; kUnavailable if the other end closes.
Status SendBytes(const Socket& socket, std::span<const std::byte> bytes, Deadline deadline);
Status ReceiveBytes(const Socket& socket, std::span<std::byte> bytes, Deadline deadline);

}  // namespace corpusd
