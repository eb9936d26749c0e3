#include "kernels/cpu/thread_pool.h"

#include <sched.h>

#include <algorithm>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace corpusd {
namespace {

// About 20 to 60 microseconds: longer than the serial stretches between two products of one token,
// far shorter than a time slice.
constexpr int kSpins = 1500;
constexpr uint64_t kNoItem =
    0xffffffffu;  // the low half of a ticket of a job that hands out nothing

void Pause() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

unsigned UsableProcessors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 0) {
    return static_cast<unsigned>(CPU_COUNT(&set));
  }
  return std::max(1u, std::thread::hardware_concurrency());
}

}  // namespace

ThreadPool::ThreadPool(unsigned threads) {
  const unsigned count = threads == 0 ? UsableProcessors() : threads;
  ranges_ = std::make_unique<Range[]>(count);
  workers_.reserve(count - 1);
  for (unsigned i = 1; i < count; ++i) workers_.emplace_back([this, i] { Work(i); });
}

ThreadPool::~ThreadPool() {
  stop_.store(true, std::memory_order_relaxed);
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::Run(uint32_t items, const void* context, Call call) {
  const uint32_t epoch = epoch_.load(std::memory_order_relaxed) + 1;
  // Closed first: a late thread that sees any of the new fields fails to take an item by the old
  // ticket.
  ticket_.store(ticket_.load(std::memory_order_relaxed) | kNoItem, std::memory_order_relaxed);
  items_.store(items, std::memory_order_release);
  context_.store(context, std::memory_order_release);
  call_.store(call, std::memory_order_release);
  done_.store(0, std::memory_order_relaxed);
  ticket_.store(uint64_t{epoch} << 32, std::memory_order_release);
  epoch_.store(epoch, std::memory_order_release);
  epoch_.notify_all();
  TakeItems(epoch, 0);
  // Only items that other threads are at work on are waited for.
  for (int spin = 0; spin < kSpins; ++spin) {
    if (done_.load(std::memory_order_acquire) == items) return;
    Pause();
  }
  for (uint32_t done = done_.load(std::memory_order_acquire); done != items;
       done = done_.load(std::memory_order_acquire)) {
    done_.wait(done, std::memory_order_acquire);
  }
}

void ThreadPool::TakeItems(uint32_t epoch, unsigned thread) {
  uint64_t ticket = ticket_.load(std::memory_order_acquire);
  while (static_cast<uint32_t>(ticket >> 32) == epoch) {
    const uint32_t items = items_.load(std::memory_order_acquire);
    const void* context = context_.load(std::memory_order_acquire);
    const Call call = call_.load(std::memory_order_acquire);
    const auto item = static_cast<uint32_t>(ticket);
    if (item >= items) return;
    if (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel,
                                       std::memory_order_acquire)) {
      continue;
    }
    call(context, item, thread);
    if (done_.fetch_add(1, std::memory_order_acq_rel) + 1 == items && thread != 0) {
      done_.notify_one();
    }
    ticket = ticket_.load(std::memory_order_acquire);
  }
}

void ThreadPool::Work(unsigned thread) {
  uint32_t seen = 0;
  while (true) {
    uint32_t epoch = epoch_.load(std::memory_order_acquire);
    for (int spin = 0; epoch == seen && spin < kSpins; ++spin) {
      Pause();
      epoch = epoch_.load(std::memory_order_acquire);
    }
    if (epoch == seen) {
      epoch_.wait(seen, std::memory_order_acquire);
      continue;
    }
    if (stop_.load(std::memory_order_relaxed)) return;
    seen = epoch;
    TakeItems(epoch, thread);
  }
}

}  // namespace corpusd
