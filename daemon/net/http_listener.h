// daemon/net/http_listener.h -- HttpListener: the addresses on which HTTP is spoken, their
// connections, and the one I/O thread on which all of them live. Members may be called from any
// thread but the I/O thread. Owns socket files and thread; the service is borrowed and must outlive
// it.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "daemon/http_address.h"
#include "daemon/net/http_connection.h"

namespace corpusd {

struct HttpListenerOptions {
  std::vector<HttpAddress> addresses;
  unsigned socket_mode = 0660;  // of Unix sockets
  size_t connections_max = 256;
  HttpConnectionOptions connection;
};

class HttpListener {
 public:
  // Listens and accepts from now on. kAlreadyExists, kIoError: an address is taken.
  static Result<std::unique_ptr<HttpListener>> Open(const HttpListenerOptions& options,
                                                    HttpService& service);
  // Closes what is open, at once.
  virtual ~HttpListener() = default;

  // With the ports that were given: "127.0.0.1:8040".
  virtual std::vector<std::string> addresses() const = 0;
  // No new clients; socket files go. Those who are connected stay.
  virtual void StopAccepting() = 0;
  // Asks every answer under way to come to its end.
  virtual void CancelCalls(const Status& why) = 0;
  // Closes every connection when its response is written, or at the end of the patience.
  virtual void Close(std::chrono::milliseconds patience) = 0;
  virtual size_t connections() const = 0;
};

}  // namespace corpusd
