// daemon/shutdown.h -- SIGTERM and SIGINT as a thing to wait for, and SIGHUP as one to be told of.
// The constructor comes before any other thread is started, so that all of them inherit the blocked
// signals. One object a process; owns a thread.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

namespace corpusd {

class ShutdownSignals {
 public:
  // Blocks the three signals and ignores SIGPIPE, for this thread and those it will start.
  ShutdownSignals();
  ~ShutdownSignals();
  ShutdownSignals(const ShutdownSignals&) = delete;
  ShutdownSignals& operator=(const ShutdownSignals&) = delete;

  // RETURNS the first signal. A second one ends the process at once, with 128 + its number: what is
  // durable stays, as after a crash.
  int Wait();
  // Called at each SIGHUP, on the thread that waits for signals; empty: they are forgotten. Returns
  // when no call of the function before goes on.
  void OnReload(std::function<void()> reload);

 private:
  void Listen();

  std::mutex mutex_;
  std::condition_variable came_;
  int first_signal_ = 0;
  std::mutex reload_mutex_;
  std::function<void()> reload_;
  std::jthread thread_;
};

}  // namespace corpusd
