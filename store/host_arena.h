// store/host_arena.h -- the host tier's memory: one mapping, given out in slots and taken back, so
// that pages are zeroed by the kernel once and stay in huge pages where it grants them. Physical
// memory stays under the cap: what is given out, free slots whose pages are kept, and what was
// touched ahead. Pages are touched a slice ahead of use, or all of them from the start, on whatever
// thread runs the touches: nobody waits for them. Where a device copies from here, whole frames are
// pinned for it when they are touched, and unpinned before their pages go. Thread-safe; shared by
// the blocks in it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "store/base/result.h"
#include "store/device_memory.h"

namespace corpusd {

class HostArena {
 public:
  // Runs the function later on another thread. Null: nothing is touched ahead.
  using RunLater = std::function<void(std::function<void()> touch)>;
  struct Options {
    uint64_t capacity_bytes = 0;           // rounded up to a page
    RunLater run_later;                    // one slice is touched ahead of use
    std::shared_ptr<DeviceMemory> device;  // that copies from here; null: none
  };
  // Takes address space, no memory. kResourceExhausted: there is none.
  static Result<std::shared_ptr<HostArena>> Create(Options options);
  ~HostArena();
  HostArena(const HostArena&) = delete;
  HostArena& operator=(const HostArena&) = delete;

  // Touches all of it, in slices, from now on.
  void TouchAll();

  static uint64_t WholePages(uint64_t bytes);
  // Page-aligned memory with any content, or null if WholePages(bytes) more than the cap would be
  // given out. bytes > 0.
  std::byte* Allocate(uint64_t bytes);
  void Free(std::byte* memory, uint64_t bytes);

  struct Usage {
    uint64_t given_bytes = 0;
    uint64_t physical_bytes = 0;  // at most; never more than the cap
    uint64_t huge_bytes = 0;      // of them in huge pages, as the kernel says
    uint64_t pinned_bytes = 0;    // for the device
    bool huge_pages_allowed = false;
  };
  // Reads /proc: for reports, not for the data path.
  Usage usage() const;

 private:
  HostArena() = default;
  struct Slots {  // of one size
    std::vector<std::byte*> warm, cold;
  };
  bool MakeRoomLocked(uint64_t bytes);
  struct Slice {
    uint64_t offset, bytes, releases, pages_released;
  };
  void TouchAheadLocked(std::vector<Slice>* slices);
  void ReleaseAheadLocked();
  void RunTouches(const std::shared_ptr<HostArena>& self, std::vector<Slice> slices) const;
  void PinSlice(const Slice& slice);
  // Gives the pages of [offset, offset + bytes) back to the system.
  void ReleasePages(uint64_t offset, uint64_t bytes);

  Options options_;
  std::weak_ptr<HostArena> self_;
  std::byte* base_ = nullptr;
  uint64_t mapped_bytes_ = 0;
  mutable std::mutex mutex_;
  std::map<uint64_t, Slots> free_;  // by bytes
  uint64_t given_bytes_ = 0;
  uint64_t physical_bytes_ = 0;  // given, warm and touched ahead
  uint64_t end_ = 0;             // slots were given out of [0, end_)
  uint64_t touched_ = 0;         // touched, or being touched, up to here; >= end_ or unused
  uint64_t releases_ = 0;        // of pages touched ahead: touches begun before are void
  std::mutex pin_mutex_;         // after mutex_
  std::atomic<uint64_t> pages_released_{0};  // times: pins begun before are void
  std::atomic<uint64_t> pinned_bytes_{0};
};

}  // namespace corpusd
