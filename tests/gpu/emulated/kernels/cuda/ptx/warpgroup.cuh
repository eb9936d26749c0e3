// tests/gpu/emulated/kernels/cuda/ptx/warpgroup.cuh -- stands in for the file of that name:
// products of a warpgroup, done at once, out of shared memory as the operands' descriptions say.
#pragma once

#include "kernels/cuda/ptx/tensor_core.cuh"
#include "tests/gpu/emulated/device.h"

namespace corpusd::cuda::ptx {

inline uint64_t SharedOperand(uint32_t address, uint32_t columns_apart) {
  return uint64_t{columns_apart >> 4} << 16 | address >> 4;
}
inline uint32_t AddressOf(uint64_t operand) { return static_cast<uint32_t>(operand & 0x3FFF) << 4; }
inline uint32_t SharedWord(uint32_t address) {
  address ^= (address >> 7 & 7) << 4;  // the 128-byte swizzle
  uint16_t word;
  std::memcpy(&word, emulated::block.shared + address, sizeof word);
  return word;
}
// Number k of a row, of an operand whose rows go along the sum; number k of a column, of one whose
// rows go across it.
inline uint32_t WordAlong(uint64_t operand, int row, int k) {
  return SharedWord(AddressOf(operand) + static_cast<uint32_t>(row * 128 + k * 2));
}
inline uint32_t WordAcross(uint64_t operand, int column, int k) {
  const uint32_t apart = static_cast<uint32_t>(operand >> 16 & 0x3FFF) << 4;
  return SharedWord(AddressOf(operand) + static_cast<uint32_t>(column / 64) * apart +
                    static_cast<uint32_t>(k * 128 + column % 64 * 2));
}

// c (+)= a * b of depth 16, of_a(row, k) and of_b(column, k) being what the operands hold.
template <int Count, class OfA, class OfB>
void MultiplyOfGroup(float (&c)[Count], bool add, const OfA& of_a, const OfB& of_b) {
  const int lane = emulated::Lane(), warp = static_cast<int>(threadIdx.x) / 32 % 4;
  for (int i = 0; i < Count; ++i) {
    const int row = 16 * warp + lane / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + lane % 4 * 2 + i % 2;
    float sum = add ? c[i] : 0;
    for (int k = 0; k < 16; ++k) sum += of_a(row, k) * of_b(column, k);
    c[i] = sum;
  }
}
// The same with a in the warp's registers; `read` makes a float of one half of a word.
template <int Count, class Read, class OfB>
void MultiplyRegistersOfGroup(float (&c)[Count], const uint32_t* a, const Read& read,
                              const OfB& of_b) {
  Operands all[32];
  emulated::Exchange(Operands{{a[0], a[1], a[2], a[3]}, {}}, all);
  const auto of_a = [&](int row, int k) {
    return read(all[row % 8 * 4 + k % 8 / 2].a[row % 16 / 8 + k / 8 * 2], k % 2);
  };
  MultiplyOfGroup(c, true, of_a, of_b);
}

template <bool Add>
void MultiplyTransposed(float (&c)[64], uint64_t a, uint64_t b) {
  MultiplyOfGroup(
      c, Add, [&](int row, int k) { return BfloatOf(WordAlong(a, row, k), 0); },
      [&](int column, int k) { return BfloatOf(WordAlong(b, column, k), 0); });
}
template <int Count>
void MultiplyRegisters(float (&c)[Count], const uint32_t* a, uint64_t b) {
  MultiplyRegistersOfGroup(
      c, a, BfloatOf, [&](int column, int k) { return BfloatOf(WordAcross(b, column, k), 0); });
}
template <int Count>
void MultiplyHalvesTransposed(float (&c)[Count], const uint32_t (&a)[4], uint64_t b) {
  MultiplyRegistersOfGroup(c, a, HalfOf,
                           [&](int column, int k) { return HalfOf(WordAlong(b, column, k), 0); });
}

// Nothing is under way, and all threads see one memory.
inline void FenceProducts() {}
inline void CommitProducts() {}
template <int Left>
void WaitProducts() {}
template <int Count>
void KeepOrder(float (&)[Count]) {}
inline void FenceShared() {}
template <int Count>
void LowerRegisters() {}
template <int Count>
void RaiseRegisters() {}

template <int Threads>
void SyncAt(int which) {
  emulated::Sync(which, Threads);
}
template <int Threads>
void PassBy(int which) {
  emulated::block.barriers[which].Come(Threads);
}

}  // namespace corpusd::cuda::ptx
