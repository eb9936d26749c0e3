// daemon/timer_queue.h -- TimerQueue: functions to be called at a time, one after the other on one
// thread. For deadlines of requests and for housekeeping; what takes long goes to a WorkerPool. Any
// thread may schedule and cancel. Owns its thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

namespace corpusd {

class TimerQueue {
 public:
  using Clock = std::chrono::steady_clock;

  TimerQueue();
  ~TimerQueue() { Stop(); }
  TimerQueue(const TimerQueue&) = delete;
  TimerQueue& operator=(const TimerQueue&) = delete;

  // Waits for what is being called; nothing else is called any more.
  void Stop();
  // RETURNS an id for Cancel, never 0.
  uint64_t Schedule(Clock::time_point when, std::function<void()> function);
  // Does not wait for a call that has begun. An unknown id is ignored.
  void Cancel(uint64_t id);

 private:
  void Run(const std::stop_token& stop);

  std::mutex mutex_;
  std::condition_variable_any changed_;
  uint64_t next_id_ = 1;
  std::map<std::pair<Clock::time_point, uint64_t>, std::function<void()>> timers_;
  std::map<uint64_t, Clock::time_point> times_;  // by id
  std::jthread thread_;
};

}  // namespace corpusd
