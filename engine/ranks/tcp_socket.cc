#include "engine/ranks/tcp_socket.h"

#include <fcntl.h>
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

// Before it is tried again to connect, or to accept when the process has no room for a socket.
constexpr std::chrono::milliseconds kAgain{50};

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

// Waits until the socket is ready; looks once, however late it is. RETURNS false when the deadline
// has passed.
bool AwaitReady(int fd, short events, Deadline deadline) {
  while (true) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    pollfd waiting = {fd, events, 0};
    const int ready =
        poll(&waiting, 1, static_cast<int>(std::clamp<int64_t>(left.count(), 0, 1000)));
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return true;  // the call that follows says what is wrong
    if (left.count() <= 0) return false;
  }
}

void SetOptions(int fd) {
  const int on = 1;
  // Small messages of a decode step must not wait for more, and a dead host must be noticed.
  (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
}

// One attempt. A host that is down says nothing, so the kernel's own patience (minutes) is not
// used.
Result<Socket> ConnectOnce(const addrinfo& to, Deadline deadline) {
  Socket socket(
      ::socket(to.ai_family, to.ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, to.ai_protocol));
  if (!socket.open()) return UnavailableError(std::strerror(errno));
  if (connect(socket.fd(), to.ai_addr, to.ai_addrlen) != 0) {
    if (errno != EINPROGRESS) return UnavailableError(std::strerror(errno));
    if (!AwaitReady(socket.fd(), POLLOUT, deadline)) return UnavailableError("no answer in time");
    int error = 0;
    socklen_t size = sizeof(error);
    (void)getsockopt(socket.fd(), SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) return UnavailableError(std::strerror(error));
  }
  (void)fcntl(socket.fd(), F_SETFL, fcntl(socket.fd(), F_GETFL) & ~O_NONBLOCK);
  SetOptions(socket.fd());
  return socket;
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
  if (!socket.open()) {
    Status failed = SystemError("accepting a rank");
    std::this_thread::sleep_for(kAgain);  // who knocks still waits, and callers try again at once
    return failed;
  }
  SetOptions(socket.fd());
  return socket;
}

Result<Socket> ConnectTcp(const std::string& address, Deadline deadline) {
  ASSIGN_OR_RETURN(const Addresses found, Resolve(address, /*passive=*/false));
  std::ptrdiff_t left = 0;
  for (const addrinfo* a = found.get(); a != nullptr; a = a->ai_next) ++left;
  deadline = std::max(deadline, std::chrono::steady_clock::now() + kAgain);
  Status last;
  do {
    std::ptrdiff_t untried = left;
    for (const addrinfo* a = found.get(); a != nullptr; a = a->ai_next) {
      const auto now = std::chrono::steady_clock::now();
      auto socket = ConnectOnce(*a, now + (deadline - now) / untried--);
      if (socket.ok()) return socket;
      last = socket.status().WithContext("connecting to " + address);
    }
    std::this_thread::sleep_for(kAgain);
  } while (std::chrono::steady_clock::now() < deadline);
  return last;
}

bool AwaitBytes(const Socket& socket, Deadline deadline) {
  return AwaitReady(socket.fd(), POLLIN, deadline);
}

bool HasClosed(const Socket& socket) {
  char byte = 0;
  const ssize_t got = recv(socket.fd(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR);
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
