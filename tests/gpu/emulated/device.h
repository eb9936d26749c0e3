// tests/gpu/emulated/device.h -- one block of a CUDA kernel on the CPU, so that its arithmetic,
// layouts and hand-overs are checked without a device: every thread is a fiber of one OS thread,
// and what a warp does together (products, shuffles, votes) is an exchange among 32 fibers. Include
// it before a kernel's source (see without_launches); kernels/cuda/ptx/ beside it stands in for the
// inline assembly. It does not show races: a fiber runs until it waits.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>
#include <vector>

namespace emulated {

struct Index {
  unsigned x = 0, y = 0, z = 0;
};

struct Fiber {
  ucontext_t context;
  std::vector<char> stack;
  Index index;
  bool done = false;
};

// What 32 fibers hand each other: the numbers of this exchange, and those of the two before.
struct Warp {
  char given[32][64];
  char kept[2][32][64];
  int count = 0, turn = 0;
};

struct Barrier {
  int count = 0, turn = 0;
  // RETURNS the turn that ends when `all` have come.
  int Come(int all) {
    const int own = turn;
    if (++count == all) count = 0, ++turn;
    return own;
  }
};

struct Block {
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  Barrier barriers[16];
  size_t current = 0;
  ucontext_t home;
  std::function<void()> kernel;
  Index index, grid;
  uint8_t* shared = nullptr;  // the kernel's dynamic shared memory
};
inline Block block;

inline int Lane() { return static_cast<int>(block.current % 32); }
inline void Yield() { swapcontext(&block.fibers[block.current].context, &block.home); }
inline void RunFiber() {
  block.kernel();
  block.fibers[block.current].done = true;
  Yield();
}

// Runs the block's kernel with so many threads. RETURNS whether all ended.
inline bool Run(size_t threads, const std::function<void()>& kernel) {
  constexpr size_t kStackBytes = size_t{128} << 10;
  constexpr int kTurnsMax = 1 << 22;
  block.kernel = kernel;
  block.fibers = std::vector<Fiber>(threads);
  block.warps = std::vector<Warp>(threads / 32);
  for (Barrier& barrier : block.barriers) barrier = {};
  for (size_t i = 0; i < threads; ++i) {
    Fiber& fiber = block.fibers[i];
    fiber.stack.resize(kStackBytes);
    fiber.index.x = static_cast<unsigned>(i);
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = fiber.stack.size();
    fiber.context.uc_link = &block.home;
    makecontext(&fiber.context, RunFiber, 0);
  }
  for (int turn = 0; turn < kTurnsMax; ++turn) {
    bool any = false;
    for (block.current = 0; block.current < threads; ++block.current) {
      if (block.fibers[block.current].done) continue;
      any = true;
      swapcontext(&block.home, &block.fibers[block.current].context);
    }
    if (!any) return true;
  }
  return false;
}

// Every lane of the warp gives one value and gets all.
template <class T>
void Exchange(const T& own, T (&all)[32]) {
  static_assert(sizeof(T) <= sizeof(Warp::given[0]) && std::is_trivially_copyable_v<T>);
  Warp& warp = block.warps[block.current / 32];
  std::memcpy(warp.given[Lane()], &own, sizeof own);
  const int turn = warp.turn;
  if (++warp.count == 32) {
    std::memcpy(warp.kept[turn % 2], warp.given, sizeof warp.given);
    warp.count = 0;
    ++warp.turn;
  }
  while (warp.turn == turn) Yield();
  for (int i = 0; i < 32; ++i) std::memcpy(&all[i], warp.kept[turn % 2][i], sizeof(T));
}

inline void Sync(int which, int threads) {
  Barrier& barrier = block.barriers[which];
  const int turn = barrier.Come(threads);
  while (barrier.turn == turn) Yield();
}

}  // namespace emulated

#undef __launch_bounds__
#define __launch_bounds__(...)
#undef __global__
#define __global__
#undef __device__
#define __device__
#undef __shared__
#define __shared__ static  // one for all fibers; a kernel's dynamic memory is in the block
#undef __grid_constant__
#define __grid_constant__
#undef __forceinline__
#define __forceinline__ inline
#define threadIdx (emulated::block.fibers[emulated::block.current].index)
#define blockIdx (emulated::block.index)
#define gridDim (emulated::block.grid)

template <class T>
T __shfl_sync(unsigned, T x, int from) {
  T all[32];
  emulated::Exchange(x, all);
  return all[from % 32];
}
template <class T>
T __shfl_xor_sync(unsigned, T x, int mask) {
  const int lane = emulated::Lane();
  T all[32];
  emulated::Exchange(x, all);
  return all[lane ^ mask];
}
template <class T>
T __shfl_up_sync(unsigned, T x, int by) {
  const int lane = emulated::Lane();
  T all[32];
  emulated::Exchange(x, all);
  return all[lane >= by ? lane - by : lane];
}
inline unsigned __ballot_sync(unsigned, bool x) {
  bool all[32];
  emulated::Exchange(x, all);
  unsigned votes = 0;
  for (int i = 0; i < 32; ++i) votes |= static_cast<unsigned>(all[i]) << i;
  return votes;
}
inline bool __any_sync(unsigned mask, bool x) { return __ballot_sync(mask, x) != 0; }
inline int __reduce_add_sync(unsigned, int x) {
  int all[32], sum = 0;
  emulated::Exchange(x, all);
  for (const int each : all) sum += each;
  return sum;
}
inline void __syncwarp() { __any_sync(~0u, false); }
inline void __syncthreads() { emulated::Sync(0, static_cast<int>(emulated::block.fibers.size())); }
template <class T>
T __ldg(const T* from) {
  return *from;
}
// As if so many blocks took turns.
inline unsigned atomicAdd(unsigned* to, unsigned by) {
  const unsigned before = *to;
  *to += by * emulated::block.grid.x;
  return before;
}
inline float __ldcg(const float* from) { return *from; }
inline int __float2int_rn(float x) { return static_cast<int>(std::nearbyintf(x)); }
inline float __uint_as_float(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
inline uint32_t __float_as_uint(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline __half2 __hfma2(__half2 x, __half2 y, __half2 z) {
  const float2 a = __half22float2(x), b = __half22float2(y), c = __half22float2(z);
  return __floats2half2_rn(std::fma(a.x, b.x, c.x), std::fma(a.y, b.y, c.y));
}

namespace corpusd::cuda {
template <class A, class B>
auto min(A a, B b) {
  using C = std::common_type_t<A, B>;
  return static_cast<C>(a) < static_cast<C>(b) ? static_cast<C>(a) : static_cast<C>(b);
}
template <class A, class B>
auto max(A a, B b) {
  using C = std::common_type_t<A, B>;
  return static_cast<C>(a) < static_cast<C>(b) ? static_cast<C>(b) : static_cast<C>(a);
}
}  // namespace corpusd::cuda
