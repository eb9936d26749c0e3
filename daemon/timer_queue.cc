#include "daemon/timer_queue.h"

namespace corpusd {

TimerQueue::TimerQueue() : thread_([this](const std::stop_token& stop) { Run(stop); }) {}

void TimerQueue::Stop() {
  thread_.request_stop();
  if (thread_.joinable()) thread_.join();
}

uint64_t TimerQueue::Schedule(Clock::time_point when, std::function<void()> function) {
  uint64_t id = 0;
  {
    std::lock_guard lock(mutex_);
    id = next_id_++;
    timers_.emplace(std::make_pair(when, id), std::move(function));
    times_.emplace(id, when);
  }
  changed_.notify_one();
  return id;
}

void TimerQueue::Cancel(uint64_t id) {
  std::function<void()> dropped;  // destroyed outside the lock: it may own anything
  std::lock_guard lock(mutex_);
  const auto time = times_.find(id);
  if (time == times_.end()) return;
  const auto timer = timers_.find({time->second, id});
  dropped = std::move(timer->second);
  timers_.erase(timer);
  times_.erase(time);
}

void TimerQueue::Run(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    if (timers_.empty()) {
      changed_.wait(lock, stop, [&] { return !timers_.empty(); });
      continue;
    }
    const auto first = timers_.begin();
    const Clock::time_point when = first->first.first;
    if (Clock::now() < when) {
      changed_.wait_until(lock, stop, when,
                          [&] { return timers_.empty() || timers_.begin()->first.first < when; });
      continue;
    }
    std::function<void()> function = std::move(first->second);
    times_.erase(first->first.second);
    timers_.erase(first);
    lock.unlock();
    function();
    function = nullptr;
    lock.lock();
  }
}

}  // namespace corpusd
