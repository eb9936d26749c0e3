#include "daemon/worker_pool.h"

#include <pthread.h>

#include <utility>

namespace corpusd {

WorkerPool::WorkerPool(const std::string& name, size_t threads, size_t queued_max)
    : thread_count_(threads), queued_max_(queued_max) {
  threads_.reserve(threads);
  for (size_t i = 0; i < threads; ++i) {
    threads_.emplace_back([this] { Work(); });
    pthread_setname_np(threads_.back().native_handle(), (name + "-" + std::to_string(i)).c_str());
  }
}

void WorkerPool::Stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  work_came_.notify_all();
  threads_.clear();
}

bool WorkerPool::Submit(std::function<void()> task) {
  {
    std::lock_guard lock(mutex_);
    // Tasks that an idle thread is about to take do not count as waiting.
    if (stopping_ || running_ + tasks_.size() >= thread_count_ + queued_max_) return false;
    tasks_.push_back(std::move(task));
  }
  work_came_.notify_one();
  return true;
}

bool WorkerPool::WaitIdle(std::chrono::steady_clock::time_point deadline) {
  std::unique_lock lock(mutex_);
  return became_idle_.wait_until(lock, deadline, [&] { return running_ == 0 && tasks_.empty(); });
}

size_t WorkerPool::running() const {
  std::lock_guard lock(mutex_);
  return running_;
}

size_t WorkerPool::queued() const {
  std::lock_guard lock(mutex_);
  return tasks_.size();
}

void WorkerPool::Work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    work_came_.wait(lock, [&] { return stopping_ || !tasks_.empty(); });
    if (tasks_.empty()) return;
    std::function<void()> task = std::move(tasks_.front());
    tasks_.pop_front();
    ++running_;
    lock.unlock();
    task();
    task = nullptr;  // what the task holds goes before anybody is told that it is done
    lock.lock();
    --running_;
    if (running_ == 0 && tasks_.empty()) became_idle_.notify_all();
  }
}

}  // namespace corpusd
