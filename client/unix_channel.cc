#include "client/unix_channel.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <thread>

namespace corpusd {
namespace {

using std::chrono::milliseconds;

// A signal that comes between the check of `interrupted` and poll(2) is noticed this much later.
constexpr milliseconds kInterruptCheck{200};
// connect(2) says EAGAIN while the daemon's backlog is full.
constexpr milliseconds kBacklogRetry{20};
constexpr size_t kReadBytes = size_t{256} << 10;

ClientError Unreachable(std::string message) {
  return {kClientUnreachable, "unreachable", std::move(message)};
}

std::string ErrnoText(int error) { return std::strerror(error); }

ClientError CannotConnect(const std::string& path, int error) {
  std::string hint = "; is it running? start it with: corpusd --socket " + path;
  if (error == EACCES) hint = "; your user must be in the socket's group";
  return Unreachable("cannot reach corpusd at '" + path + "': " + ErrnoText(error) + hint);
}

}  // namespace

ClientResult<std::unique_ptr<UnixChannel>> UnixChannel::Connect(
    const std::string& path, ClientDeadline deadline, size_t frame_bytes_max,
    const std::atomic<bool>* interrupted) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return ClientError{kClientInvalidArgument, "invalid_argument",
                       "socket path '" + path + "' must have 1 to " +
                           std::to_string(sizeof(address.sun_path) - 1) + " bytes"};
  }
  path.copy(address.sun_path, path.size());
  const int file = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (file < 0) return Unreachable("cannot make a socket: " + ErrnoText(errno));
  std::unique_ptr<UnixChannel> channel(new UnixChannel(file, path, frame_bytes_max, interrupted));
  while (connect(file, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    const int error = errno;
    if (error == EINTR) continue;
    if (error == EAGAIN && std::chrono::steady_clock::now() < deadline) {
      std::this_thread::sleep_for(kBacklogRetry);
      continue;
    }
    return CannotConnect(path, error);
  }
  return channel;
}

UnixChannel::UnixChannel(int file, std::string path, size_t frame_bytes_max,
                         const std::atomic<bool>* interrupted)
    : file_(file),
      path_(std::move(path)),
      frame_bytes_max_(frame_bytes_max),
      interrupted_(interrupted),
      decoder_(frame_bytes_max) {}

UnixChannel::~UnixChannel() { close(file_); }

ClientError UnixChannel::Broken(const std::string& what) const {
  return Unreachable("connection to corpusd at '" + path_ + "' " + what);
}

ClientResult<short> UnixChannel::Wait(short events, ClientDeadline deadline) {
  for (;;) {
    if (interrupted_ != nullptr && interrupted_->load()) {
      return ClientError{kClientInterrupted, "interrupted",
                         "interrupted while waiting for corpusd"};
    }
    int timeout_ms = -1;
    if (deadline != kNoDeadline) {
      const auto left =
          std::chrono::ceil<milliseconds>(deadline - std::chrono::steady_clock::now());
      if (left <= milliseconds::zero()) {
        return ClientError{kClientDeadlineExceeded, "deadline_exceeded",
                           "corpusd at '" + path_ + "' did not answer in time"};
      }
      timeout_ms = static_cast<int>(std::min<int64_t>(left.count(), 1 << 30));
    }
    if (interrupted_ != nullptr) {
      const int slice = static_cast<int>(kInterruptCheck.count());
      timeout_ms = timeout_ms < 0 ? slice : std::min(timeout_ms, slice);
    }
    pollfd entry{file_, events, 0};
    const int ready = poll(&entry, 1, timeout_ms);
    if (ready > 0) return entry.revents;
    if (ready < 0 && errno != EINTR) return Broken("failed in poll: " + ErrnoText(errno));
  }
}

bool UnixChannel::ReadAvailable() {
  thread_local std::array<char, kReadBytes> buffer;
  while (!broken_) {
    const ssize_t got = recv(file_, buffer.data(), buffer.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return true;
    if (got < 0) {
      broken_ = Broken("broke: " + ErrnoText(errno));
    } else if (got == 0) {
      broken_ = Broken(decoder_.inside_frame() ? "was cut off in the middle of an answer"
                                               : "was closed by the daemon");
    }
    if (broken_) return false;
    std::string_view input(buffer.data(), static_cast<size_t>(got));
    FrameDecoder::Outcome outcome;
    while ((outcome = decoder_.Take(&input)) == FrameDecoder::Outcome::kFrame) {
      v1::Response response;
      if (!response.ParseFromString(decoder_.frame())) {
        broken_ = ClientError{kClientProtocol, "protocol",
                              "what answers at '" + path_ + "' does not speak corpusd's protocol"};
        return false;
      }
      received_.push_back(std::move(response));
    }
    if (outcome == FrameDecoder::Outcome::kTooLarge) {
      broken_ = ClientError{kClientProtocol, "protocol",
                            "corpusd at '" + path_ + "' sent a frame of " +
                                std::to_string(decoder_.refused_bytes()) + " bytes, the limit is " +
                                std::to_string(frame_bytes_max_)};
    }
  }
  return false;
}

ClientResult<Done> UnixChannel::Send(const v1::Request& request, ClientDeadline deadline) {
  if (broken_) return *broken_;
  std::string frame;
  if (!AppendFrame(request, frame_bytes_max_, &frame)) {
    return ClientError{kClientInvalidArgument, "invalid_argument",
                       "the request has " + std::to_string(request.ByteSizeLong()) +
                           " bytes, the limit of a frame is " + std::to_string(frame_bytes_max_)};
  }
  size_t sent = 0;
  while (sent < frame.size()) {
    const ssize_t wrote = send(file_, frame.data() + sent, frame.size() - sent, MSG_NOSIGNAL);
    if (wrote >= 0) {
      sent += static_cast<size_t>(wrote);
      continue;
    }
    const int error = errno;
    if (error == EINTR) continue;
    if (error != EAGAIN && error != EWOULDBLOCK) {
      ReadAvailable();  // the daemon may have said why before it closed
      if (!broken_) broken_ = Broken("broke: " + ErrnoText(error));
      return *broken_;
    }
    auto events = Wait(POLLOUT | POLLIN, deadline);
    if (!events.ok()) {
      // Half a frame is on its way: nothing else can be said on this connection.
      if (sent > 0 && !broken_) broken_ = Broken("was given up in the middle of a request");
      return events.error();
    }
    if ((*events & POLLIN) != 0 && !ReadAvailable()) return *broken_;
  }
  return Done{};
}

ClientResult<v1::Response> UnixChannel::Receive(ClientDeadline deadline) {
  while (received_.empty()) {
    if (broken_) return *broken_;
    auto events = Wait(POLLIN, deadline);
    if (!events.ok()) return events.error();
    ReadAvailable();
  }
  v1::Response response = std::move(received_.front());
  received_.pop_front();
  return response;
}

std::optional<v1::Response> UnixChannel::TryReceive() {
  if (received_.empty() && !broken_) ReadAvailable();
  if (received_.empty()) return std::nullopt;
  v1::Response response = std::move(received_.front());
  received_.pop_front();
  return response;
}

}  // namespace corpusd
