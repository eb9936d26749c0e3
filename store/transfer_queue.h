// store/transfer_queue.h -- moves of bytes between tiers, run by a few threads under a budget of
// bytes in flight. A sliding window: the next move begins when the budget has room for it, not when
// a group is done. Moves for questions go before those in the background; within a priority, first
// come first served. Knows no block and no tier. Thread-safe; owns its threads.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace corpusd {

enum class TransferPriority : uint8_t { kQuestion = 0, kBackground = 1 };

class TransferQueue {
 public:
  struct Options {
    unsigned threads = 4;
    // Enough for the bandwidth of one NVMe disk. A larger single move runs alone.
    uint64_t inflight_bytes = uint64_t{96} << 20;
  };
  explicit TransferQueue(const Options& options);
  // Waits for the moves that run; those that wait are dropped.
  ~TransferQueue();
  TransferQueue(const TransferQueue&) = delete;
  TransferQueue& operator=(const TransferQueue&) = delete;

  struct Transfer {
    uint64_t bytes = 0;
    std::function<void()> run;  // on a thread of the queue
  };
  // Never blocks. The transfers begin in this order.
  void Submit(TransferPriority priority, std::vector<Transfer> transfers);

  struct Load {
    uint64_t inflight_bytes = 0;
    uint64_t inflight_bytes_max = 0;  // since the start
    uint64_t waiting = 0;             // transfers that have not begun
  };
  Load load() const;
  const Options& options() const { return options_; }

 private:
  void Work();
  // The queue whose front may begin now, or null.
  std::deque<Transfer>* NextLocked();

  const Options options_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Transfer> waiting_[2];  // by priority
  Load load_;
  bool stopping_ = false;
  std::vector<std::jthread> threads_;
};

}  // namespace corpusd
