#include "store/transfer_queue.h"

#include <algorithm>
#include <utility>

namespace corpusd {

TransferQueue::TransferQueue(const Options& options) : options_(options) {
  for (unsigned t = 0; t < std::max(1u, options.threads); ++t) {
    threads_.emplace_back([this] { Work(); });
  }
}

TransferQueue::~TransferQueue() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  threads_.clear();
}

void TransferQueue::Submit(TransferPriority priority, std::vector<Transfer> transfers) {
  {
    const std::lock_guard lock(mutex_);
    auto& queue = waiting_[static_cast<size_t>(priority)];
    for (Transfer& transfer : transfers) queue.push_back(std::move(transfer));
    load_.waiting += transfers.size();
  }
  changed_.notify_all();
}

TransferQueue::Load TransferQueue::load() const {
  const std::lock_guard lock(mutex_);
  return load_;
}

std::deque<TransferQueue::Transfer>* TransferQueue::NextLocked() {
  for (auto& queue : waiting_) {
    if (queue.empty()) continue;
    // What does not fit keeps those behind it waiting: else a large move might never begin.
    const bool fits = load_.inflight_bytes == 0 ||
                      load_.inflight_bytes + queue.front().bytes <= options_.inflight_bytes;
    return fits ? &queue : nullptr;
  }
  return nullptr;
}

void TransferQueue::Work() {
  std::unique_lock lock(mutex_);
  while (true) {
    std::deque<Transfer>* queue = nullptr;
    changed_.wait(lock, [&] { return stopping_ || (queue = NextLocked()) != nullptr; });
    if (stopping_) return;
    Transfer transfer = std::move(queue->front());
    queue->pop_front();
    --load_.waiting;
    load_.inflight_bytes += transfer.bytes;
    load_.inflight_bytes_max = std::max(load_.inflight_bytes_max, load_.inflight_bytes);
    lock.unlock();
    transfer.run();
    transfer.run = nullptr;  // lets go of what it held before its bytes count as free
    lock.lock();
    load_.inflight_bytes -= transfer.bytes;
    changed_.notify_all();
  }
}

}  // namespace corpusd
