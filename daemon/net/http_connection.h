// daemon/net/http_connection.h -- HttpConnection: one client that speaks HTTP/1.1: requests read
// within limits of size and time, one at a time, given to the HttpService; responses written as the
// client takes them. A client that stalls costs its own connection and nothing else. Every member
// is called on the I/O thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>

#include "daemon/http/http_service.h"
#include "daemon/http/identity.h"
#include "daemon/rpc/peer.h"

namespace boost::asio {
class io_context;
}

namespace corpusd {

struct HttpConnectionOptions {
  std::function<Peer(int descriptor)> peer_of = PeerOf;  // who is at the other end
  size_t header_bytes_max = size_t{16} << 10;
  std::chrono::milliseconds header_timeout{10000};
  std::chrono::milliseconds body_timeout{60000};
  std::chrono::milliseconds idle_timeout{75000};
  // A write that the client does not take in this time ends the connection, and so does this much
  // that waits to be written.
  std::chrono::milliseconds write_timeout{30000};
  size_t queued_bytes_max = size_t{8} << 20;
  // A stream in which nothing comes for so long gets a comment.
  std::chrono::milliseconds ping_interval{15000};
};

class HttpConnection {
 public:
  // Takes the descriptor, a connected stream socket. family: AF_UNIX, AF_INET or AF_INET6.
  // on_closed is called once, when the connection is gone.
  static std::shared_ptr<HttpConnection> Make(boost::asio::io_context& io, int descriptor,
                                              int family, const HttpConnectionOptions& options,
                                              HttpService& service,
                                              std::function<void()> on_closed);
  virtual ~HttpConnection() = default;

  virtual void Start() = 0;
  // Answers the first request with this error, then closes.
  virtual void Refuse(const Status& why) = 0;
  // Asks the answer under way to come to its end.
  virtual void CancelCalls(const Status& why) = 0;
  // Closes when the response under way is written; at once if there is none.
  virtual void CloseAfterFlush() = 0;
  virtual void Close() = 0;
};

}  // namespace corpusd
