// engine/ranks/shelf_message.h -- what rank 0 and a shelf say to each other: a length, then a verb
// and its numbers, as rank_message.h has them; answered by a RankReply, and what was asked for
// behind it. Internal to rank_shelf.cc.
#pragma once

#include <string>

#include "engine/ranks/rank_message.h"
#include "engine/ranks/tcp_socket.h"

namespace corpusd {

enum class ShelfVerb : uint64_t {
  kAttach = 1,  // the store's name and the extents that live
  kRead,        // sections of a block
  kDrop,        // extents; not answered
  kUsage,
  kWrite,  // blocks, whose payloads follow; answered with their extent
  kCopy,   // blocks that lie there, into a new extent
};

// A list of the extents of 16 TB takes no more.
inline constexpr uint64_t kShelfMessageMax = uint64_t{64} << 20;

inline RankMessage ShelfMessage(ShelfVerb verb) {
  RankMessage message;
  message.Number(static_cast<uint64_t>(verb));
  return message;
}

inline Status SendMessage(const Socket& socket, const std::string& body, Deadline deadline) {
  const uint64_t bytes = body.size();
  RETURN_IF_ERROR(SendBytes(socket, std::as_bytes(std::span(&bytes, 1)), deadline));
  return SendBytes(socket, std::as_bytes(std::span(body.data(), body.size())), deadline);
}

inline Result<std::string> ReceiveMessage(const Socket& socket, Deadline deadline) {
  uint64_t bytes = 0;
  RETURN_IF_ERROR(ReceiveBytes(socket, std::as_writable_bytes(std::span(&bytes, 1)), deadline));
  if (bytes > kShelfMessageMax)
    return InternalError("a message of " + std::to_string(bytes) + " bytes is no shelf's");
  std::string body(bytes, '\0');
  RETURN_IF_ERROR(
      ReceiveBytes(socket, std::as_writable_bytes(std::span(body.data(), body.size())), deadline));
  return body;
}

inline Status SendReply(const Socket& socket, const Status& status) {
  const RankReply reply = RankReply::Of(status);
  return SendBytes(socket, std::as_bytes(std::span(&reply, 1)),
                   std::chrono::steady_clock::now() + std::chrono::seconds(60));
}

}  // namespace corpusd
