// kernels/cpu/thread_pool.h -- a parallel for with a fixed number of threads. Work is handed out
// item by item, so a thread that the system takes away delays only its own item; results must not
// depend on who does what. Waiting threads spin for some microseconds, then sleep. One caller at a
// time.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

namespace corpusd {

class ThreadPool {
 public:
  // threads counts the caller; 0: one per processor this process may use.
  explicit ThreadPool(unsigned threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  unsigned threads() const { return static_cast<unsigned>(workers_.size()) + 1; }

  // Calls body(item, thread) for every item in [0, items); thread < threads() is unique among the
  // calls in flight. Returns when all are done. body must not throw and must not call ParallelFor.
  template <typename Body>
  void ParallelFor(uint32_t items, const Body& body) {
    if (items == 0) return;
    if (items == 1 || workers_.empty()) {
      for (uint32_t item = 0; item < items; ++item) body(item, 0u);
      return;
    }
    Run(items, &body, [](const void* context, uint32_t item, unsigned thread) {
      (*static_cast<const Body*>(context))(item, thread);
    });
  }

  // The same for items that read memory one behind the other: they are cut into one range a thread.
  // A thread takes its own range in ascending order, then helps with those of others.
  template <typename Body>
  void ParallelForRanges(uint32_t items, const Body& body) {
    const unsigned count = threads();
    for (unsigned t = 0; t < count; ++t) ranges_[t].next.store(RangeBegin(items, t), kRelaxed);
    ParallelFor(count, [&](uint32_t, unsigned thread) {
      for (unsigned i = 0; i < count; ++i) {
        const unsigned range = (thread + i) % count;
        const uint32_t end = RangeBegin(items, range + 1);
        std::atomic<uint32_t>& next = ranges_[range].next;
        while (next.load(kRelaxed) < end) {
          const uint32_t item = next.fetch_add(1, kRelaxed);
          if (item < end) body(item, thread);
        }
      }
    });
  }
  // The first item of thread `range`'s range; of range threads(): items.
  uint32_t RangeBegin(uint32_t items, unsigned range) const {
    return static_cast<uint32_t>(uint64_t{items} * range / threads());
  }

 private:
  static constexpr std::memory_order kRelaxed = std::memory_order_relaxed;
  // A range of ParallelForRanges: its next item. In a cache line of its own.
  struct alignas(64) Range {
    std::atomic<uint32_t> next{0};
  };
  using Call = void (*)(const void* context, uint32_t item, unsigned thread);

  void Run(uint32_t items, const void* context, Call call);
  void Work(unsigned thread);
  // Takes items of job `epoch` until none is left.
  void TakeItems(uint32_t epoch, unsigned thread);

  // High half: the job's number; low half: the next item. A late thread cannot take an item of a
  // job it has not read, because the number would differ.
  alignas(64) std::atomic<uint64_t> ticket_{0};
  alignas(64) std::atomic<uint32_t> done_{0};
  alignas(64) std::atomic<uint32_t> items_{0};
  std::atomic<const void*> context_{nullptr};
  std::atomic<Call> call_{nullptr};
  alignas(64) std::atomic<uint32_t> epoch_{0};  // what sleepers wait on
  std::atomic<bool> stop_{false};
  std::unique_ptr<Range[]> ranges_;  // one a thread
  std::vector<std::thread> workers_;
};

}  // namespace corpusd
