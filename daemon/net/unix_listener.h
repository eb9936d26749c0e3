// daemon/net/unix_listener.h -- UnixListener: the socket that clients connect to, its connections
// and the one I/O thread on which all of them live. Members may be called from any thread but the
// I/O thread. Owns the socket file and the thread; services are borrowed and must outlive it.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>

#include "daemon/net/rpc_connection.h"
#include "daemon/rpc/services.h"

namespace corpusd {

struct ListenerOptions {
  std::string socket_path;
  unsigned socket_mode = 0660;
  size_t connections_max = 256;
  ConnectionOptions connection;
};

class UnixListener {
 public:
  // Listens and accepts from now on. Errors as SocketFile::Listen.
  static Result<std::unique_ptr<UnixListener>> Open(const ListenerOptions& options,
                                                    const Services& services);
  // Closes what is open, at once.
  virtual ~UnixListener() = default;

  // No new clients; the socket's file goes. Those who are connected stay.
  virtual void StopAccepting() = 0;
  // Asks every open call to stop.
  virtual void CancelCalls(const Status& why) = 0;
  // Closes every connection when its queue is written, or at the end of the patience.
  virtual void Close(std::chrono::milliseconds patience) = 0;
  virtual size_t connections() const = 0;
};

}  // namespace corpusd
