#include "engine/ranks/tcp_socket.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <thread>

namespace corpusd {
namespace {

constexpr std::chrono::milliseconds kConnectAgain{50};

Status SystemError(const std::string& what) {
  return UnavailableError(what + ": " + std::strerror(errno));
}

using Addresses = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

Result<Addresses> Resolve(const std::string& address, bool passive) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos || colon == 0 || colon + 1 == address.size()) {
    return InvalidArgumentError("'" + address + "' is no address: host:port is");
  }
  std::string host = address.substr(0, colon);
  if (host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV | (passive ? AI_PASSIVE : 0);
  addrinfo* found = nullptr;
  const int error = getaddrinfo(host.c_str(), address.c_str() + colon + 1, &hints, &found);
  if (error != 0) {
    return InvalidArgumentError("'" + address + "' is no address: " + gai_strerror(error));
  }
  return Addresses(found, &freeaddrinfo);
}

// Waits until the socket is ready. RETURNS false when the deadline has passed.
bool AwaitReady(int fd, short events, Deadline deadline) {
  while (true) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0) return false;
    pollfd waiting = {fd, events, 0};
    const int ready = poll(&waiting, 1, static_cast<int>(std::min<int64_t>(left.count(), 1000)));
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return true;  // the call that follows says what is wrong
  }
}

void SetOptions(int fd) {
  const int on = 1;
  // Small messages of a decode step must not wait for more, and a dead host must be noticed.
  (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
}

std::string WithPort(const std::string& address, int fd) {
  sockaddr_storage bound = {};
  socklen_t size = sizeof(bound);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &size) != 0) return address;
  const in_port_t port = bound.ss_family == AF_INET6
                             ? reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port
                             : reinterpret_cast<sockaddr_in*>(&bound)->sin_port;
  return address.substr(0, address.rfind(':') + 1) + std::to_string(ntohs(port));
}

}  // namespace

Socket& Socket::operator=(Socket&& other) noexcept {
  if (this != &other) {
    Close();
    fd_ = other.Release();
  }
  return *this;
}

void Socket::Close() {
  if (fd_ >= 0) (void)close(fd_);
  fd_ = -1;
}

Result<std::pair<Socket, Socket>> MakeSocketPair() {
  int ends[2] = {};
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return SystemError("making a stream");
  }
  return std::pair(Socket(ends[0]), Socket(ends[1]));
}

Result<Socket> ListenTcp(const std::string& address, std::string* bound) {
  ASSIGN_OR_RETURN(const Addresses found, Resolve(address, /*passive=*/true));
  Status last = UnavailableError("no address");
  for (const addrinfo* a = found.get(); a != nullptr; a = a->ai_next) {
    Socket socket(::socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol));
    const int on = 1;
    if (socket.open() && setsockopt(socket.fd(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0 &&
        bind(socket.fd(), a->ai_addr, a->ai_addrlen) == 0 && listen(socket.fd(), 128) == 0) {
      *bound = WithPort(address, socket.fd());
      return socket;
    }
    last = SystemError("listening at " + address);
  }
  return last;
}

Result<Socket> AcceptTcp(const Socket& listener, Deadline deadline) {
  if (!AwaitReady(listener.fd(), POLLIN, deadline)) {
    return Status(StatusCode::kDeadlineExceeded, "nobody connected in time");
  }
  Socket socket(accept4(listener.fd(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!socket.open()) return SystemError("accepting a rank");
  SetOptions(socket.fd());
  return socket;
}

Result<Socket> ConnectTcp(const std::string& address, Deadline deadline) {
  ASSIGN_OR_RETURN(const Addresses found, Resolve(address, /*passive=*/false));
  Status last;
  do {
    for (const addrinfo* a = found.get(); a != nullptr; a = a->ai_next) {
      Socket socket(::socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol));
      if (socket.open() && connect(socket.fd(), a->ai_addr, a->ai_addrlen) == 0) {
        SetOptions(socket.fd());
        return socket;
      }
      last = SystemError("connecting to " + address);
    }
    std::this_thread::sleep_for(kConnectAgain);
  } while (std::chrono::steady_clock::now() < deadline);
  return last;
}

bool AwaitBytes(const Socket& socket, Deadline deadline) {
  return AwaitReady(socket.fd(), POLLIN, deadline);
}

Status SendBytes(const Socket& socket, std::span<const std::byte> bytes, Deadline deadline) {
  while (!bytes.empty()) {
    if (!AwaitReady(socket.fd(), POLLOUT, deadline)) {
      return Status(StatusCode::kDeadlineExceeded, "the other rank took nothing in time");
    }
    const ssize_t sent = send(socket.fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno != EAGAIN && errno != EINTR) return SystemError("sending");
    if (sent > 0) bytes = bytes.subspan(static_cast<size_t>(sent));
  }
  return OkStatus();
}

Status ReceiveBytes(const Socket& socket, std::span<std::byte> bytes, Deadline deadline) {
  while (!bytes.empty()) {
    if (!AwaitReady(socket.fd(), POLLIN, deadline)) {
      return Status(StatusCode::kDeadlineExceeded, "the other rank sent nothing in time");
    }
    const ssize_t got = recv(socket.fd(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (got == 0) return UnavailableError("the other rank closed the connection");
    if (got < 0 && errno != EAGAIN && errno != EINTR) return SystemError("receiving");
    if (got > 0) bytes = bytes.subspan(static_cast<size_t>(got));
  }
  return OkStatus();
}

}  // namespace corpusd
