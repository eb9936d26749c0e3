// daemon/shutdown.h -- SIGTERM and SIGINT as a thing to wait for, SIGHUP as a call. The constructor
// comes before any other thread is started, so that all of them inherit the blocked signals. One
// object a process; owns a thread.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

namespace corpusd {

class ShutdownSignals {
 public:
  // Blocks the three signals and ignores SIGPIPE, for this thread and those it will start.
  // on_hangup: called on a thread of this object for each SIGHUP; may be empty.
  explicit ShutdownSignals(std::function<void()> on_hangup = {});
  ~ShutdownSignals();
  ShutdownSignals(const ShutdownSignals&) = delete;
  ShutdownSignals& operator=(const ShutdownSignals&) = delete;

  // RETURNS the first signal. A second one ends the process at once, with 128 + its number: what is
  // durable stays, as after a crash.
  int Wait();

 private:
  void Listen();

  const std::function<void()> on_hangup_;
  std::mutex mutex_;
  std::condition_variable came_;
  int first_signal_ = 0;
  std::jthread thread_;
};

}  // namespace corpusd
