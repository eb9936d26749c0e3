// daemon/net/http_exchange.h -- QueuedExchange: the HttpExchange of a connection: parts of a
// response come from any thread and wait here, bounded in bytes, until the I/O thread has written
// them. Owned by the connection and by whoever answers, which may outlive the connection.
#pragma once

#include <atomic>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "daemon/http/exchange.h"

namespace corpusd {

class QueuedExchange : public HttpExchange, public std::enable_shared_from_this<QueuedExchange> {
 public:
  struct Part {
    enum class Kind : uint8_t { kWhole, kHead, kPiece, kEnd } kind = Kind::kWhole;
    HttpResponse response;  // of kWhole and kHead
    std::string piece;
  };

  // post: runs a function on the I/O thread. on_part: called there when a part has come.
  QueuedExchange(HttpRequest request, std::function<void(std::function<void()>)> post,
                 std::function<void()> on_part);

  void Send(HttpResponse response) override;
  void BeginStream(HttpResponse head) override;
  bool SendPiece(std::string piece) override;
  void EndStream() override;
  void OnStop(std::function<void(const Status& why)> function) override;

  // On the I/O thread.
  bool empty() const { return parts_.empty(); }
  size_t queued_bytes() const { return queued_bytes_; }
  Part Take();
  // The client has gone: nothing is taken any more.
  void Close();
  // Asks whoever answers to come to an end.
  void Stop(const Status& why);

 private:
  void Post(Part part);

  const std::function<void(std::function<void()>)> post_;
  const std::function<void()> on_part_;
  std::atomic<bool> answered_{false};
  std::atomic<bool> closed_{false};
  std::deque<Part> parts_;
  size_t queued_bytes_ = 0;

  std::mutex mutex_;
  std::function<void(const Status&)> on_stop_;
  Status stopped_;  // why; Ok: not stopped
};

}  // namespace corpusd
