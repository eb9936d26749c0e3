// daemon/net/rpc_connection.h -- RpcConnection: one client on the Unix socket: frames in to its
// RpcSession, frames out from a write queue that is bounded in bytes and time, so that a client
// which does not read costs its own connection and nothing else. Every member is called on the I/O
// thread unless it says otherwise.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "daemon/rpc/peer.h"
#include "daemon/rpc/services.h"

namespace boost::asio {
class io_context;
}

namespace corpusd {

struct ConnectionOptions {
  std::function<Peer(int descriptor)> peer_of = PeerOf;  // who is at the other end
  size_t frame_bytes_max = size_t{16} << 20;
  // A client may leave this much unread for as long as it likes, more for write_stall, and never
  // queued_bytes_max.
  size_t unread_bytes_max = size_t{4} << 20;
  size_t queued_bytes_max = size_t{64} << 20;
  std::chrono::milliseconds write_stall{10000};
};

class RpcConnection {
 public:
  // Takes the descriptor. on_closed is called once, on the I/O thread, when the connection is gone.
  static std::shared_ptr<RpcConnection> Make(boost::asio::io_context& io, int descriptor,
                                             const ConnectionOptions& options,
                                             const Services& services,
                                             std::function<void()> on_closed);
  virtual ~RpcConnection() = default;

  virtual void Start() = 0;
  // Sends one error that speaks of the connection, then closes it.
  virtual void Refuse(const Status& why) = 0;
  // Cancels every open call; their last responses still go out.
  virtual void CancelCalls(const Status& why) = 0;
  // Closes when what is queued has been written.
  virtual void CloseAfterFlush() = 0;
  virtual void Close() = 0;
};

}  // namespace corpusd
