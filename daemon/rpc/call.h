// daemon/rpc/call.h -- Call: one open request of one connection, from its first frame to its last
// response. Knows how to answer, to be cancelled and to run out of time; not what is asked. Shared
// by the session and whoever works for it; every member may be used from any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>

#include "corpusd/v1/corpusd.pb.h"
#include "daemon/timer_queue.h"
#include "store/base/status.h"

namespace corpusd {

// Where responses go: a connection's write queue. Send never blocks; false once the connection is
// gone.
class ResponseSink {
 public:
  virtual ~ResponseSink() = default;
  virtual bool Send(const v1::Response& response) = 0;
};

class Call : public std::enable_shared_from_this<Call> {
 public:
  // Told how the call ended, once, before the last response goes out.
  using OnEnd = std::function<void(StatusCode code)>;
  Call(uint64_t id, std::shared_ptr<ResponseSink> sink, TimerQueue& timers, OnEnd on_end);
  ~Call();
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  uint64_t id() const { return id_; }
  // What log lines call it, the same in all of them: "rpc-7-12", or an X-Request-Id. Set before any
  // other thread has the call.
  const std::string& label() const { return label_; }
  void set_label(std::string label) { label_ = std::move(label); }
  std::stop_token stop_token() const { return stop_.get_token(); }
  std::chrono::steady_clock::time_point came_at() const { return came_at_; }
  bool ended() const;

  // After this much time the call ends with kDeadlineExceeded and its work is asked to stop.
  void SetTimeout(std::chrono::milliseconds timeout);
  // Called once when the call is cancelled, runs out of time or loses its client; at once if it
  // has.
  void OnStop(std::function<void()> function);

  // Whoever begins to work says so. RETURNS false if the call has ended meanwhile: nothing is to be
  // done.
  bool Begin();
  // One response of a stream. RETURNS false if nobody reads it any more.
  bool Send(v1::Response response);
  // The last response. Only the first Finish or Fail counts.
  void Finish(v1::Response response);
  void Fail(const Status& status);
  // Asks the work to stop; it answers with what it has. A call that nobody works on yet ends with
  // `why`.
  void Cancel(const Status& why);

 private:
  void End(v1::Response response);

  const uint64_t id_;
  std::string label_;
  const std::chrono::steady_clock::time_point came_at_ = std::chrono::steady_clock::now();
  const std::shared_ptr<ResponseSink> sink_;
  TimerQueue& timers_;
  std::stop_source stop_;
  mutable std::mutex mutex_;
  bool begun_ = false;
  bool ended_ = false;
  uint64_t timer_id_ = 0;
  OnEnd on_end_;
  std::optional<std::stop_callback<std::function<void()>>> on_stop_;
};

}  // namespace corpusd
