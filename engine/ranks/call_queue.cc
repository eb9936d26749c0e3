#include "engine/ranks/call_queue.h"

#include <chrono>

namespace corpusd {
namespace {

// A layer's calls follow one another within microseconds: a sleep would be noticed.
constexpr std::chrono::microseconds kLooks{2'000};

// Until the number is another one than `seen`.
uint64_t AwaitChange(const std::atomic<uint64_t>& number, uint64_t seen) {
  const auto end = std::chrono::steady_clock::now() + kLooks;
  uint64_t now = number.load(std::memory_order_acquire);
  for (int look = 0; now == seen; ++look) {
    if (look % 64 == 63) {
      if (std::chrono::steady_clock::now() > end) number.wait(seen, std::memory_order_acquire);
      std::this_thread::yield();
    }
    now = number.load(std::memory_order_acquire);
  }
  return now;
}

}  // namespace

CallQueue::CallQueue()
    : slots_(std::make_unique<std::array<Slot, kSlots>>()), thread_([this] { Work(); }) {}

CallQueue::~CallQueue() {
  NextSlot().run = nullptr;
  Publish();
}

CallQueue::Slot& CallQueue::NextSlot() {
  const uint64_t next = posted_.load(std::memory_order_relaxed);
  for (uint64_t made = made_.load(std::memory_order_acquire); next - made == kSlots;) {
    made = AwaitChange(made_, made);
  }
  return (*slots_)[next % kSlots];
}

void CallQueue::Publish() {
  posted_.fetch_add(1, std::memory_order_release);
  posted_.notify_one();
}

void CallQueue::Await() {
  const uint64_t posted = posted_.load(std::memory_order_relaxed);
  for (uint64_t made = made_.load(std::memory_order_acquire); made < posted;) {
    made = AwaitChange(made_, made);
  }
}

void CallQueue::Work() {
  for (uint64_t made = 0;; ++made) {
    if (posted_.load(std::memory_order_acquire) == made) AwaitChange(posted_, made);
    const Slot& slot = (*slots_)[made % kSlots];
    if (slot.run == nullptr) return;
    slot.run(slot.bytes);
    made_.store(made + 1, std::memory_order_release);
    made_.notify_all();
  }
}

}  // namespace corpusd
