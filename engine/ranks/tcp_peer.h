// engine/ranks/tcp_peer.h -- one connection to another rank as messages: what is to be sent and
// what is expected, moved as far as the socket takes or has them. Knows no thread and never waits;
// its owner calls it under one lock.
#pragma once

#include <array>
#include <deque>
#include <memory>
#include <string>

#include "engine/ranks/tcp_socket.h"

namespace corpusd {

// A message of 16 bytes more than its own: kind, zeros, size, in the byte order of the machines,
// which are alike.
enum class FrameKind : uint32_t { kData = 1, kAbort = 2, kBye = 3 };
struct FrameHeader {
  FrameKind kind = FrameKind::kData;
  uint32_t reserved = 0;
  uint64_t bytes = 0;
};
static_assert(sizeof(FrameHeader) == 16);

struct TcpMessage {
  std::span<const std::byte> source;  // of one that is sent
  std::span<std::byte> target;        // of one that is expected
  bool done = false;
  Status status;
};
using TcpMessagePtr = std::shared_ptr<TcpMessage>;

class TcpPeer {
 public:
  TcpPeer(Socket socket, std::string name) : socket_(std::move(socket)), name_(std::move(name)) {}

  const std::string& name() const { return name_; }
  int fd() const { return socket_.fd(); }
  // Events of poll(2) that it waits for; 0: none.
  short Wanted() const;
  void Send(TcpMessagePtr message) { sends_.push_back(std::move(message)); }
  void Receive(TcpMessagePtr message) { receives_.push_back(std::move(message)); }
  // Moves what can be moved. An error ends the job; a peer that has said goodbye only ends what
  // waits for it. RETURNS whether a message was completed in *moved.
  Status Move(short events, bool* moved);
  // Why nothing comes from it any more, or Ok.
  const Status& gone() const { return gone_; }
  // Ends all its messages.
  void EndAll(const Status& status);
  // Says a last word, if the connection is between two messages, and closes it.
  void Close(FrameKind kind, std::string_view text);

 private:
  Status Write(bool* moved);
  Status Read(bool* moved);
  Status TakeHeader(bool* moved);
  Status Lost(const std::string& why) const;

  Socket socket_;
  const std::string name_;
  std::deque<TcpMessagePtr> sends_, receives_;
  size_t written_ = 0;  // of the first message to send and its header
  FrameHeader header_;
  size_t header_read_ = 0, payload_read_ = 0;
  std::string abort_text_;  // being read
  bool hung_up_ = false;    // no use polling for it
  Status gone_;
};

}  // namespace corpusd
