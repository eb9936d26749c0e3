// daemon/http/exchange.h -- HttpExchange: one request on its way to its response, which is sent
// whole or as a stream of events. Knows when nobody waits for it any more. Every member may be
// called from any thread and none blocks: a client that reads slowly is waited for by the
// connection, within its limits, and by nobody else.
#pragma once

#include <functional>
#include <string>
#include <utility>

#include "daemon/http/http_message.h"

namespace corpusd {

class HttpExchange {
 public:
  explicit HttpExchange(HttpRequest request) : request_(std::move(request)) {}
  virtual ~HttpExchange() = default;
  HttpExchange(const HttpExchange&) = delete;
  HttpExchange& operator=(const HttpExchange&) = delete;

  const HttpRequest& request() const { return request_; }
  // For the router, before any handler has it.
  void set_name(std::string name) { request_.name = std::move(name); }

  // The whole response. Only the first Send or BeginStream counts.
  virtual void Send(HttpResponse response) = 0;
  // A response whose body follows in pieces, text/event-stream. While nothing comes, comments keep
  // the connection alive.
  virtual void BeginStream(HttpResponse head) = 0;
  // RETURNS false if nobody reads it any more.
  virtual bool SendPiece(std::string piece) = 0;
  virtual void EndStream() = 0;

  // Called once when the client goes (kCancelled) or the daemon stops (kUnavailable; the client
  // still reads); at once if that has happened. At most one function.
  virtual void OnStop(std::function<void(const Status& why)> function) = 0;

 private:
  HttpRequest request_;
};

// One server-sent event with this data, which must be one line.
std::string SseData(const std::string& data);

}  // namespace corpusd
