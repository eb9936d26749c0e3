#include "engine/ranks/tcp_peer.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace corpusd {
namespace {

// Bytes of one call: what is moved under the owner's lock takes well below a millisecond.
constexpr size_t kStepBytes = 1 << 20;
constexpr uint64_t kAbortTextMax = 4096;

}  // namespace

Status TcpPeer::Lost(const std::string& why) const {
  return UnavailableError(name_ + " was lost: " + why);
}

short TcpPeer::Wanted() const {
  if (!socket_.open() || !gone_.ok()) return 0;
  int events = hung_up_ ? 0 : POLLRDHUP;
  // A message that nobody expects yet stays where it is.
  const bool in_data = header_read_ == sizeof(header_) && header_.kind == FrameKind::kData;
  if (!in_data || !receives_.empty()) events |= POLLIN;
  if (!sends_.empty()) events |= POLLOUT;
  return static_cast<short>(events);
}

Status TcpPeer::Move(short events, bool* moved) {
  if ((events & (POLLRDHUP | POLLHUP | POLLERR)) != 0) hung_up_ = true;
  if ((Wanted() & POLLIN) != 0 && (events & (POLLIN | POLLRDHUP | POLLHUP | POLLERR)) != 0) {
    RETURN_IF_ERROR(Read(moved));
  }
  if (!sends_.empty() && gone_.ok() && (events & (POLLOUT | POLLHUP | POLLERR)) != 0) {
    return Write(moved);
  }
  return OkStatus();
}

Status TcpPeer::Write(bool* moved) {
  size_t budget = kStepBytes;
  while (!sends_.empty() && budget > 0) {
    TcpMessage& message = *sends_.front();
    const FrameHeader header{FrameKind::kData, 0, message.source.size()};
    const auto head =
        std::as_bytes(std::span(&header, 1)).subspan(std::min(written_, sizeof(header)));
    const size_t body_begin = written_ > sizeof(header) ? written_ - sizeof(header) : 0;
    const auto body = message.source.subspan(body_begin);
    iovec pieces[2] = {{const_cast<std::byte*>(head.data()), head.size()},
                       {const_cast<std::byte*>(body.data()), std::min(body.size(), budget)}};
    msghdr call = {};
    call.msg_iov = pieces;
    call.msg_iovlen = 2;
    const ssize_t sent = sendmsg(socket_.fd(), &call, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return OkStatus();
    if (sent < 0) return Lost(std::string("sending: ") + std::strerror(errno));
    written_ += static_cast<size_t>(sent);
    budget -= std::min(budget, static_cast<size_t>(sent));
    if (written_ < sizeof(header) + message.source.size()) continue;
    message.done = true;
    *moved = true;
    sends_.pop_front();
    written_ = 0;
  }
  return OkStatus();
}

Status TcpPeer::Read(bool* moved) {
  size_t budget = kStepBytes;
  while (budget > 0 && gone_.ok()) {
    std::span<std::byte> into;
    if (header_read_ < sizeof(header_)) {
      into = std::as_writable_bytes(std::span(&header_, 1)).subspan(header_read_);
    } else if (header_.kind == FrameKind::kAbort) {
      into = std::as_writable_bytes(std::span(abort_text_)).subspan(payload_read_);
    } else {
      if (receives_.empty()) return OkStatus();
      RETURN_IF_ERROR(TakeHeader(moved));
      into = receives_.front()->target.subspan(payload_read_);
    }
    if (!into.empty()) {
      const ssize_t got =
          recv(socket_.fd(), into.data(), std::min(into.size(), budget), MSG_DONTWAIT);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return OkStatus();
      if (got < 0) return Lost(std::string("receiving: ") + std::strerror(errno));
      if (got == 0) return Lost("the connection was closed");
      budget -= static_cast<size_t>(got);
      if (header_read_ < sizeof(header_)) {
        header_read_ += static_cast<size_t>(got);
        if (header_read_ == sizeof(header_)) RETURN_IF_ERROR(TakeHeader(moved));
        continue;
      }
      payload_read_ += static_cast<size_t>(got);
    }
    if (payload_read_ < header_.bytes) continue;
    if (header_.kind == FrameKind::kAbort) return Status(StatusCode::kAborted, abort_text_);
    receives_.front()->done = true;
    receives_.pop_front();
    *moved = true;
    header_read_ = payload_read_ = 0;
  }
  return OkStatus();
}

// What a header that has come means for those who wait.
Status TcpPeer::TakeHeader(bool* moved) {
  switch (header_.kind) {
    case FrameKind::kData:
      if (receives_.empty() || receives_.front()->target.size() == header_.bytes) {
        return OkStatus();
      }
      return InternalError(name_ + " sent " + std::to_string(header_.bytes) + " bytes where " +
                           std::to_string(receives_.front()->target.size()) + " were expected");
    case FrameKind::kAbort:
      if (header_.bytes > kAbortTextMax) break;
      abort_text_.resize(header_.bytes);
      return OkStatus();
    case FrameKind::kBye:
      EndAll(Lost("it has ended"));
      gone_ = Lost("it has ended");
      *moved = true;
      return OkStatus();
  }
  return InternalError(name_ + " sent what is no message of a job");
}

void TcpPeer::EndAll(const Status& status) {
  for (auto* queue : {&sends_, &receives_}) {
    for (const TcpMessagePtr& message : *queue) {
      message->status = status;
      message->done = true;
    }
    queue->clear();
  }
}

void TcpPeer::Close(FrameKind kind, std::string_view text) {
  if (!socket_.open()) return;
  if (written_ == 0 && gone_.ok()) {
    text = text.substr(0, kAbortTextMax);
    const FrameHeader header{kind, 0, text.size()};
    std::string frame(reinterpret_cast<const char*>(&header), sizeof(header));
    frame += text;
    // A full socket means that the other end sees a closed connection instead.
    (void)send(socket_.fd(), frame.data(), frame.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  }
  socket_.Close();
}

}  // namespace corpusd
