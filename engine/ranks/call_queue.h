// engine/ranks/call_queue.h -- a thread that makes calls in the order they are posted: what a
// device that follows another one is told. Posting allocates nothing and wakes the thread only if
// it sleeps. One thread posts.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <thread>
#include <type_traits>

namespace corpusd {

class CallQueue {
 public:
  CallQueue();
  // Makes the calls that are left, then ends.
  ~CallQueue();
  CallQueue(const CallQueue&) = delete;
  CallQueue& operator=(const CallQueue&) = delete;

  // What the call refers to must live until it has been made. Waits while the queue is full.
  template <typename Call>
  void Post(const Call& call) {
    static_assert(sizeof(Call) <= kCallBytes && alignof(Call) <= alignof(std::max_align_t));
    static_assert(std::is_trivially_copyable_v<Call>);
    Slot& slot = NextSlot();
    std::memcpy(slot.bytes, &call, sizeof call);
    slot.run = [](const std::byte* bytes) {
      (*std::launder(reinterpret_cast<const Call*>(bytes)))();
    };
    Publish();
  }
  // Until all calls posted so far have been made.
  void Await();
  // Whether they have.
  bool idle() const { return made_.load(std::memory_order_acquire) == posted_.load(); }

 private:
  static constexpr size_t kCallBytes = 368;
  static constexpr uint64_t kSlots = 1024;
  struct Slot {
    alignas(std::max_align_t) std::byte bytes[kCallBytes];
    void (*run)(const std::byte*) = nullptr;  // null: the last
  };
  Slot& NextSlot();
  void Publish();
  void Work();

  const std::unique_ptr<std::array<Slot, kSlots>> slots_;
  std::atomic<uint64_t> posted_{0}, made_{0};
  std::jthread thread_;
};

}  // namespace corpusd
