// kernels/cuda/ptx/async_copy.cuh -- bulk copies into shared memory and the barriers that count
// their bytes (PTX ISA 9.0, sections cp.async, cp.async.bulk, mbarrier).
#pragma once

#include <cstdint>

namespace corpusd::cuda::ptx {

__device__ __forceinline__ uint32_t SharedAddress(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// barrier: 8 bytes of shared memory; a phase ends after `arrivals` and the bytes expected in it.
__device__ __forceinline__ void InitBarrier(uint64_t* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(SharedAddress(barrier)), "r"(arrivals));
}
// Makes fresh barriers visible to the copy engine; the block must synchronise afterwards.
__device__ __forceinline__ void PublishBarriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void Arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(SharedAddress(barrier)) : "memory");
}
// What a warp did before one arrival of its own; barriers are initialized with kWarpArrivals of it
// a warp. One lane behind a __syncwarp is enough, but compute-sanitizer's racecheck takes only a
// lane's own arrival for an order of its accesses (a ring of 20 lines shows it), so that a build
// for it has all of them arrive (CORPUSD_RACECHECK).
#ifdef CORPUSD_RACECHECK
constexpr int kWarpArrivals = 32;
__device__ __forceinline__ void ArriveWarp(uint64_t* barrier) { Arrive(barrier); }
#else
constexpr int kWarpArrivals = 1;
__device__ __forceinline__ void ArriveWarp(uint64_t* barrier) {
  __syncwarp();
  if (threadIdx.x % 32 == 0) Arrive(barrier);
}
#endif
__device__ __forceinline__ void ArriveExpecting(uint64_t* barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(SharedAddress(barrier)),
               "r"(bytes)
               : "memory");
}
// Waits until the phase of this parity has ended.
__device__ __forceinline__ void WaitPhase(uint64_t* barrier, int parity) {
  asm volatile(
      "{\n.reg .pred done;\n"
      "WAIT_%=:\n"
      "mbarrier.try_wait.parity.shared.b64 done, [%0], %1;\n"
      "@done bra READY_%=;\n"
      "bra WAIT_%=;\n"
      "READY_%=:\n}\n" ::"r"(SharedAddress(barrier)),
      "r"(parity)
      : "memory");
}
// Starts a copy of bytes (a multiple of 16, both ends aligned to 16) that the barrier counts.
__device__ __forceinline__ void CopyToShared(void* to, const void* from, int bytes,
                                             uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(SharedAddress(to)),
      "l"(from), "r"(bytes), "r"(SharedAddress(barrier))
      : "memory");
}
// Starts a copy of 16 bytes past the L1 cache; zeros instead if `valid` is false.
__device__ __forceinline__ void CopyAsync16(void* to, const void* from, bool valid) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(SharedAddress(to)), "l"(from),
               "r"(bytes)
               : "memory");
}
// The same, always.
__device__ __forceinline__ void CopyAsync16(void* to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(SharedAddress(to)), "l"(from)
               : "memory");
}
// The same if `wanted`, else nothing.
__device__ __forceinline__ void CopyAsync16If(bool wanted, void* to, const void* from) {
  asm volatile(
      "{\n.reg .pred wanted;\nsetp.ne.b32 wanted, %2, 0;\n"
      "@wanted cp.async.cg.shared.global [%0], [%1], 16;\n}\n" ::"r"(SharedAddress(to)),
      "l"(from), "r"(static_cast<int>(wanted))
      : "memory");
}
// Asks for the line of this address into the L2 cache.
__device__ __forceinline__ void PrefetchL2(const void* from) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(from));
}
// Closes a group of such copies of this thread.
__device__ __forceinline__ void CommitCopies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Waits until at most `Left` groups of this thread are under way.
template <int Left>
__device__ __forceinline__ void WaitCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Left) : "memory");
}
// A barrier among the first `Threads` threads of the block.
template <int Threads>
__device__ __forceinline__ void SyncThreads() {
  asm volatile("bar.sync 1, %0;" ::"n"(Threads) : "memory");
}

}  // namespace corpusd::cuda::ptx
