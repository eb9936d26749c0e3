// daemon/worker_pool.h -- WorkerPool: a fixed number of threads over one bounded queue of tasks,
// for everything that may block and so must not run on the I/O thread. Submit may come from any
// thread. Owns its threads. Tasks must not throw. No priorities: a pool is one class of work.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace corpusd {

class WorkerPool {
 public:
  // name: of the threads, at most 12 characters.
  WorkerPool(const std::string& name, size_t threads, size_t queued_max);
  ~WorkerPool() { Stop(); }
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // Runs what is queued, then joins; takes no more tasks. Once done, calling it again does nothing.
  void Stop();
  // RETURNS false, and forgets the task, if the queue is full or the pool is stopping. Never waits.
  bool Submit(std::function<void()> task);
  // Waits until nothing runs and nothing is queued. RETURNS whether that came before the deadline.
  bool WaitIdle(std::chrono::steady_clock::time_point deadline);
  size_t running() const;
  size_t queued() const;

 private:
  void Work();

  const size_t thread_count_;
  const size_t queued_max_;
  mutable std::mutex mutex_;
  std::condition_variable work_came_;
  std::condition_variable became_idle_;
  std::deque<std::function<void()>> tasks_;
  size_t running_ = 0;
  bool stopping_ = false;
  std::vector<std::jthread> threads_;
};

}  // namespace corpusd
