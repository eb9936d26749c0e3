#include "store/host_arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <string>

#include "store/base/check.h"
#include "store/base/units.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23  // Linux 5.14
#endif

namespace corpusd {
namespace {

constexpr uint64_t kPageBytes = 4096;
constexpr uint64_t kHugePageBytes = uint64_t{2} << 20;
// Touched at once: long enough for the kernel to be quick, short enough not to hold up reads.
// Slices end at its multiples, so that whole ones can be pinned.
constexpr uint64_t kSliceBytes = kPinFrameBytes;
// Address space over the cap, so that slots of new sizes find a place beside free ones of old
// sizes.
constexpr uint64_t kAddressFactor = 16;

bool HugePagesAllowed() {
  std::ifstream file("/sys/kernel/mm/transparent_hugepage/enabled");
  std::string line;
  std::getline(file, line);
  return line.find("[always]") != std::string::npos || line.find("[madvise]") != std::string::npos;
}

// AnonHugePages of the process's mappings inside [begin, end).
uint64_t HugeBytes(uintptr_t begin, uintptr_t end) {
  std::ifstream file("/proc/self/smaps");
  uint64_t bytes = 0;
  bool inside = false;
  for (std::string line; std::getline(file, line);) {
    uintptr_t first = 0;
    uintptr_t last = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &first, &last) == 2) {
      inside = first >= begin && last <= end;
    } else if (uint64_t kilobytes = 0;
               inside && std::sscanf(line.c_str(), "AnonHugePages: %lu kB", &kilobytes) == 1) {
      bytes += kilobytes << 10;
    }
  }
  return bytes;
}

}  // namespace

uint64_t HostArena::WholePages(uint64_t bytes) {
  return (bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
}

Result<std::shared_ptr<HostArena>> HostArena::Create(Options options) {
  std::shared_ptr<HostArena> arena(new HostArena);
  options.capacity_bytes = std::max(kPageBytes, WholePages(options.capacity_bytes));
  void* memory = MAP_FAILED;
  for (uint64_t factor = kAddressFactor; factor > 0 && memory == MAP_FAILED; factor /= 2) {
    arena->mapped_bytes_ = options.capacity_bytes * factor + kSliceBytes;
    memory = mmap(nullptr, arena->mapped_bytes_, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  }
  if (memory == MAP_FAILED) {
    return ResourceExhaustedError("cannot map " + FormatBytes(options.capacity_bytes) +
                                  " of address space for the host tier: lower --host-bytes");
  }
  arena->base_ = static_cast<std::byte*>(memory);
  // Huge pages give attention 70 % more read bandwidth where the kernel grants them on request.
  madvise(memory, arena->mapped_bytes_, MADV_HUGEPAGE);
  const auto misaligned = reinterpret_cast<uintptr_t>(memory) % kSliceBytes;
  arena->end_ = misaligned == 0 ? 0 : kSliceBytes - misaligned;
  arena->touched_ = arena->end_;
  arena->options_ = std::move(options);
  arena->self_ = arena;
  return arena;
}

void HostArena::TouchAll() {
  std::vector<Slice> slices;
  {
    const std::lock_guard lock(mutex_);
    for (size_t before = 1; slices.size() != before;) {
      before = slices.size();
      TouchAheadLocked(&slices);
    }
  }
  RunTouches(self_.lock(), std::move(slices));
}

HostArena::~HostArena() {
  if (base_ == nullptr) return;
  if (options_.device != nullptr) options_.device->Unpin({base_, mapped_bytes_});
  munmap(base_, mapped_bytes_);
}

// Takes the next slice beyond what is touched, if the cap has room for it.
void HostArena::TouchAheadLocked(std::vector<Slice>* slices) {
  if (options_.run_later == nullptr) return;
  const uint64_t first = std::max(touched_, end_);
  const uint64_t room =
      options_.capacity_bytes - std::min(options_.capacity_bytes, physical_bytes_);
  const uint64_t border = kSliceBytes - reinterpret_cast<uintptr_t>(base_ + first) % kSliceBytes;
  const uint64_t bytes = std::min({border, room, mapped_bytes_ - first});
  if (bytes < kPageBytes) return;
  touched_ = first + bytes;
  physical_bytes_ += bytes;
  slices->push_back({first, bytes, releases_, pages_released_});
}

void HostArena::ReleasePages(uint64_t offset, uint64_t bytes) {
  ++pages_released_;
  if (options_.device != nullptr) {
    const std::lock_guard lock(pin_mutex_);
    options_.device->Unpin({base_ + offset, bytes});
  }
  madvise(base_ + offset, bytes, MADV_DONTNEED);
}

// The device would go on reading pages that were given back, so none is pinned after it went.
void HostArena::PinSlice(const Slice& slice) {
  if (options_.device == nullptr || slice.bytes != kPinFrameBytes) return;
  const std::lock_guard lock(pin_mutex_);
  if (pages_released_ != slice.pages_released) return;
  if (options_.device->Pin({base_ + slice.offset, slice.bytes})) pinned_bytes_ += slice.bytes;
}

void HostArena::ReleaseAheadLocked() {
  if (touched_ <= end_) return;
  ReleasePages(end_, touched_ - end_);
  physical_bytes_ -= touched_ - end_;
  touched_ = end_;
  ++releases_;
}

void HostArena::RunTouches(const std::shared_ptr<HostArena>& self,
                           std::vector<Slice> slices) const {
  for (const Slice& slice : slices) {
    options_.run_later([self, slice] {
      {
        const std::lock_guard lock(self->mutex_);
        if (self->releases_ != slice.releases) return;
      }
      // Content stays as it is, so a slot that is given out meanwhile is not disturbed. If an old
      // kernel refuses, it is the first writer who waits for the page, as always.
      (void)madvise(self->base_ + slice.offset, slice.bytes, MADV_POPULATE_WRITE);
      self->PinSlice(slice);
    });
  }
}

bool HostArena::MakeRoomLocked(uint64_t bytes) {
  const auto fits = [&] { return physical_bytes_ + bytes <= options_.capacity_bytes; };
  if (!fits()) ReleaseAheadLocked();
  for (auto& [size, slots] : free_) {
    while (!fits() && !slots.warm.empty()) {
      std::byte* const slot = slots.warm.back();
      slots.warm.pop_back();
      ReleasePages(static_cast<uint64_t>(slot - base_), size);
      physical_bytes_ -= size;
      slots.cold.push_back(slot);
    }
  }
  return fits();
}

std::byte* HostArena::Allocate(uint64_t bytes) {
  const uint64_t size = WholePages(bytes);
  std::byte* memory = nullptr;
  std::vector<Slice> slices;
  {
    const std::lock_guard lock(mutex_);
    if (given_bytes_ + size > options_.capacity_bytes) return nullptr;
    Slots& slots = free_[size];
    if (!slots.warm.empty()) {
      memory = slots.warm.back();
      slots.warm.pop_back();
    } else if (!slots.cold.empty()) {
      if (!MakeRoomLocked(size)) return nullptr;
      memory = slots.cold.back();
      slots.cold.pop_back();
      physical_bytes_ += size;
    } else {
      const uint64_t ahead = touched_ > end_ ? std::min(size, touched_ - end_) : 0;
      if (end_ + size > mapped_bytes_) return nullptr;
      if (ahead < size && !MakeRoomLocked(size - ahead)) return nullptr;
      const uint64_t still_ahead = touched_ > end_ ? std::min(size, touched_ - end_) : 0;
      if (still_ahead < ahead && !MakeRoomLocked(size - still_ahead)) return nullptr;
      physical_bytes_ += size - still_ahead;
      memory = base_ + end_;
      end_ += size;
      touched_ = std::max(touched_, end_);
      if (touched_ - end_ < kSliceBytes / 2) TouchAheadLocked(&slices);
    }
    given_bytes_ += size;
  }
  if (!slices.empty()) RunTouches(self_.lock(), std::move(slices));
  return memory;
}

void HostArena::Free(std::byte* memory, uint64_t bytes) {
  const uint64_t size = WholePages(bytes);
  const std::lock_guard lock(mutex_);
  given_bytes_ -= size;
  free_[size].warm.push_back(memory);
  if (given_bytes_ > 0) return;
  // Nothing is in use: forget sizes that may never come again. Pages are kept, up to the cap.
  const auto start = reinterpret_cast<uintptr_t>(base_) % kSliceBytes;
  uint64_t warm_bytes = 0;
  for (const auto& [slot_bytes, slots] : free_) warm_bytes += slot_bytes * slots.warm.size();
  if (free_.size() == 1 && free_.begin()->second.cold.empty()) return;
  const uint64_t first = start == 0 ? 0 : kSliceBytes - start;
  ReleasePages(first, end_ - first);
  physical_bytes_ -= warm_bytes;
  ReleaseAheadLocked();
  free_.clear();
  end_ = first;
  touched_ = first;
}

HostArena::Usage HostArena::usage() const {
  Usage usage;
  {
    const std::lock_guard lock(mutex_);
    usage.given_bytes = given_bytes_;
    usage.physical_bytes = physical_bytes_;
  }
  usage.pinned_bytes = pinned_bytes_;
  usage.huge_pages_allowed = HugePagesAllowed();
  const auto begin = reinterpret_cast<uintptr_t>(base_);
  usage.huge_bytes = HugeBytes(begin, begin + mapped_bytes_);
  return usage;
}

}  // namespace corpusd
