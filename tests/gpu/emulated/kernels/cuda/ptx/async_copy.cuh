// tests/gpu/emulated/kernels/cuda/ptx/async_copy.cuh -- stands in for the file of that name: copies
// are done when they are asked for, or later and in any order; barriers count arrivals and bytes.
// Ends the program at more arrivals than a phase has, and at a copy that is not aligned.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <random>
#include <vector>

#include "tests/gpu/emulated/device.h"

namespace corpusd::cuda::ptx {

struct CountingBarrier {
  int arrivals = 0, left = 0, phase = 0;
  int64_t bytes = 0;

  void Arrive(int64_t expected) {
    Require(left > 0, "an arrival too many");
    --left;
    bytes += expected;
    End();
  }
  void Receive(int64_t count) {
    bytes -= count;
    End();
  }
  static void Require(bool condition, const char* what) {
    if (condition) return;
    std::fprintf(stderr, "emulated device: %s\n", what);
    std::abort();
  }

 private:
  void End() {
    if (left == 0 && bytes == 0) left = arrivals, phase ^= 1;
  }
};
inline std::map<const uint64_t*, CountingBarrier> counting_barriers;
// What lies in memory where a barrier is: nothing else may be written there.
inline constexpr uint64_t kBarrierMark = 0x7265697272614221;
inline CountingBarrier& BarrierAt(const uint64_t* barrier) {
  CountingBarrier::Require(*barrier == kBarrierMark, "a barrier was overwritten");
  return counting_barriers.at(barrier);
}

inline uint32_t SharedAddress(const void* pointer) {
  return static_cast<uint32_t>(static_cast<const uint8_t*>(pointer) - emulated::block.shared);
}
inline void InitBarrier(uint64_t* barrier, int arrivals) {
  *barrier = kBarrierMark;
  counting_barriers[barrier] = {arrivals, arrivals};
}
inline void PublishBarriers() {}
inline void Arrive(uint64_t* barrier) { BarrierAt(barrier).Arrive(0); }
constexpr int kWarpArrivals = 1;
inline void ArriveWarp(uint64_t* barrier) {
  __syncwarp();
  if (threadIdx.x % 32 == 0) Arrive(barrier);
}
inline void ArriveExpecting(uint64_t* barrier, int bytes) { BarrierAt(barrier).Arrive(bytes); }
// Copies under way, if they are to be late; those who wait bring them.
struct LateCopies {
  struct Copy {
    void* to;
    const void* from;
    size_t bytes;
    uint64_t* barrier;
  };
  bool wanted = false;
  std::vector<Copy> copies;
  std::mt19937 random{7};

  // Ends one of the copies, seldom enough that others overtake it.
  void Step() {
    if (copies.empty() || random() % 40000 != 0) return;
    const size_t which = random() % copies.size();
    const Copy copy = copies[which];
    copies.erase(copies.begin() + static_cast<ptrdiff_t>(which));
    std::memcpy(copy.to, copy.from, copy.bytes);
    BarrierAt(copy.barrier).Receive(static_cast<int64_t>(copy.bytes));
  }
};
inline LateCopies late_copies;
inline void WaitPhase(uint64_t* barrier, int parity) {
  while (BarrierAt(barrier).phase == parity) {
    late_copies.Step();
    emulated::Yield();
  }
}
inline void CopyToShared(void* to, const void* from, int bytes, uint64_t* barrier) {
  const auto aligned = [](const void* at) { return reinterpret_cast<uintptr_t>(at) % 16 == 0; };
  CountingBarrier::Require(aligned(to) && aligned(from) && bytes % 16 == 0,
                           "a copy is not aligned");
  if (late_copies.wanted) {
    return late_copies.copies.push_back({to, from, static_cast<size_t>(bytes), barrier});
  }
  std::memcpy(to, from, static_cast<size_t>(bytes));
  BarrierAt(barrier).Receive(bytes);
}
inline void PrefetchL2(const void*) {}

// Groups of copies of each thread, which are done when the thread waits for them.
struct OwnCopy {
  void* to;
  const void* from;
};
inline std::map<unsigned, std::deque<std::vector<OwnCopy>>> own_copies;  // the last is open
inline void CopyAsync16(void* to, const void* from) {
  CountingBarrier::Require(
      reinterpret_cast<uintptr_t>(to) % 16 == 0 && reinterpret_cast<uintptr_t>(from) % 16 == 0,
      "a copy is not aligned");
  auto& groups = own_copies[threadIdx.x];
  if (groups.empty()) groups.emplace_back();
  groups.back().push_back({to, from});
}
inline void CommitCopies() {
  auto& groups = own_copies[threadIdx.x];
  if (groups.empty()) groups.emplace_back();
  groups.emplace_back();
}
template <int Left>
void WaitCopies() {
  auto& groups = own_copies[threadIdx.x];
  while (groups.size() > Left + 1) {
    for (const OwnCopy& copy : groups.front()) std::memcpy(copy.to, copy.from, 16);
    groups.pop_front();
  }
}

}  // namespace corpusd::cuda::ptx
