// kernels/cuda/ptx/warpgroup.cuh -- products of a warpgroup (128 threads, four whole warps) out of
// shared memory, and what goes with them (PTX ISA 9.0, sections wgmma, setmaxnreg, bar,
// fence.proxy). sm_90a only.
//
// c holds, in warp w of the warpgroup and lane 4g + t, rows 16w + g and 16w + g + 8 and columns
// 8n + 2t, 8n + 2t + 1: numbers 4n, 4n + 1 of the first row, 4n + 2, 4n + 3 of the second. a in
// registers is laid out as for mma.m16n8k16, warp by warp.
#pragma once

#include <cstdint>

namespace corpusd::cuda::ptx {

// Where an operand in shared memory lies: rows of 128 bytes, eight of them 1024 bytes, the 16-byte
// pieces of row r permuted by XOR with r % 8. columns_apart: bytes from 64 columns to the next 64,
// for an operand whose rows go along the sum. address: of the first of the rows that are used.
__device__ __forceinline__ uint64_t SharedOperand(uint32_t address, uint32_t columns_apart) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62, kRowsApart = uint64_t{1024 >> 4} << 32;
  return kSwizzle128 | kRowsApart | uint64_t{columns_apart >> 4} << 16 | (address & 0x3FFFF) >> 4;
}

#define CORPUSD_FOUR(i) "+f"(c[i]), "+f"(c[(i) + 1]), "+f"(c[(i) + 2]), "+f"(c[(i) + 3])
#define CORPUSD_SIXTEEN(i) \
  CORPUSD_FOUR(i), CORPUSD_FOUR((i) + 4), CORPUSD_FOUR((i) + 8), CORPUSD_FOUR((i) + 12)

// c (+)= a * b': a 64 x 16, b 128 x 16 bfloat16, both with rows along the sum; overwrites c unless
// `Add`. Asynchronous, as all products here: nothing may touch c before WaitProducts.
template <bool Add>
__device__ __forceinline__ void MultiplyTransposed(float (&c)[64], uint64_t a, uint64_t b) {
  asm volatile(
      "{\n.reg .pred add;\nsetp.ne.b32 add, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
      "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
      "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
      "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"
      "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63},"
      "%64,%65,add,1,1,0,0;\n}\n"
      : CORPUSD_SIXTEEN(0), CORPUSD_SIXTEEN(16), CORPUSD_SIXTEEN(32), CORPUSD_SIXTEEN(48)
      : "l"(a), "l"(b), "n"(Add ? 1 : 0));
}

// c += a * b: a 64 x 16 in registers, b 16 x 128 (x 64) bfloat16 with rows across the sum.
__device__ __forceinline__ void MultiplyRegisters(float (&c)[64], const uint32_t* a, uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
      "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
      "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
      "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"
      "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63},"
      "{%64,%65,%66,%67},%68,1,1,1,1;"
      : CORPUSD_SIXTEEN(0), CORPUSD_SIXTEEN(16), CORPUSD_SIXTEEN(32), CORPUSD_SIXTEEN(48)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
__device__ __forceinline__ void MultiplyRegisters(float (&c)[32], const uint32_t* a, uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
      "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
      "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31},"
      "{%32,%33,%34,%35},%36,1,1,1,1;"
      : CORPUSD_SIXTEEN(0), CORPUSD_SIXTEEN(16)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

// c += a * b': a 64 x 16 halves in registers, b 128 (64) x 16 halves with rows along the sum.
__device__ __forceinline__ void MultiplyHalvesTransposed(float (&c)[64], const uint32_t (&a)[4],
                                                         uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {"
      "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
      "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
      "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"
      "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63},"
      "{%64,%65,%66,%67},%68,1,1,1,0;"
      : CORPUSD_SIXTEEN(0), CORPUSD_SIXTEEN(16), CORPUSD_SIXTEEN(32), CORPUSD_SIXTEEN(48)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
__device__ __forceinline__ void MultiplyHalvesTransposed(float (&c)[32], const uint32_t (&a)[4],
                                                         uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {"
      "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
      "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31},"
      "{%32,%33,%34,%35},%36,1,1,1,0;"
      : CORPUSD_SIXTEEN(0), CORPUSD_SIXTEEN(16)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

#undef CORPUSD_SIXTEEN
#undef CORPUSD_FOUR

// Before a product: registers that were written are seen by it.
__device__ __forceinline__ void FenceProducts() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
// Closes a group of products.
__device__ __forceinline__ void CommitProducts() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Waits until at most `Left` groups are under way.
template <int Left>
__device__ __forceinline__ void WaitProducts() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Left) : "memory");
}
// What follows uses these numbers after what came before, as the compiler shall see it.
template <int Count>
__device__ __forceinline__ void KeepOrder(float (&c)[Count]) {
#pragma unroll
  for (int i = 0; i < Count; ++i) asm volatile("" : "+f"(c[i])::"memory");
}
// Shared memory that this thread wrote is seen by the tensor core and the copy engine, once a
// barrier has followed.
__device__ __forceinline__ void FenceShared() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Registers a thread of the warpgroup from here on.
template <int Count>
__device__ __forceinline__ void LowerRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Count));
}
template <int Count>
__device__ __forceinline__ void RaiseRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Count));
}

// Barrier `which` (1 to 15) of the block, for so many threads: to wait at, or only to have passed.
template <int Threads>
__device__ __forceinline__ void SyncAt(int which) {
  asm volatile("bar.sync %0, %1;" ::"r"(which), "n"(Threads) : "memory");
}
template <int Threads>
__device__ __forceinline__ void PassBy(int which) {
  asm volatile("bar.arrive %0, %1;" ::"r"(which), "n"(Threads) : "memory");
}

}  // namespace corpusd::cuda::ptx
