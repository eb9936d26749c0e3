// kernels/cpu/isa/group_words.h -- how int16_groups.h keeps and multiplies a row's codes where the
// processor multiplies pairs of int16: as they are, in order. Included after the int16 lanes,
// before int16_groups.h, by one translation unit.
#pragma once

namespace corpusd {
namespace {

// A prepared row: cols codes; per 32 of them their sum, as a float; the scale of the row.
constexpr uint64_t GroupSumsOffset(uint32_t cols) { return uint64_t{cols} * 2; }
constexpr uint64_t GroupRowBytes(uint32_t cols) {
  return (GroupSumsOffset(cols) + (uint64_t{cols} / kQuantBlock + 1) * 4 + 63) / 64 * 64;
}

// The 32 codes of group g, whole numbers below 2^15. RETURNS their sum, below 2^20: exact in any
// order.
inline float StoreGroup(std::byte* row, uint32_t /*cols*/, uint32_t g, Lanes q0, Lanes q1) {
  auto* codes = reinterpret_cast<int16_t*>(row) + size_t{g} * kQuantBlock;
  StoreInt16(codes, q0);
  StoreInt16(codes + kLanes, q1);
  return ReduceAdd(Add(q0, q1));
}

// Calls emit(pair, w) for the 16 input pairs of group g of a panel in order.
template <PackedKind kKind, typename Emit>
inline __attribute__((always_inline)) void ForEachPair(const std::byte* codes, uint32_t g,
                                                       Emit emit) {
  if constexpr (kKind == PackedKind::kQ4) {
#pragma GCC unroll 4
    for (uint32_t c = 0; c < 4; ++c) {
      const IntLanes v = LoadInt(codes + (size_t{g} * 4 + c) * 64);
      emit(c * 4 + 0, NibblePairs<0>(v));
      emit(c * 4 + 1, NibblePairs<4>(v));
      emit(c * 4 + 2, NibblePairs<8>(v));
      emit(c * 4 + 3, NibblePairs<12>(v));
    }
  } else {
#pragma GCC unroll 8
    for (uint32_t c = 0; c < 8; ++c) {
      const IntLanes v = LoadInt(codes + (size_t{g} * 8 + c) * 64);
      emit(c * 2 + 0, BytePairs<0>(v));
      emit(c * 2 + 1, BytePairs<2>(v));
    }
  }
}

// dots[r] = the sum over the 32 inputs of group g of row r's codes times the panel's, exactly.
// rows: kRows prepared rows of `cols`, row_bytes apart; codes: the panel's.
template <PackedKind kKind, uint32_t kRows>
inline __attribute__((always_inline)) void GroupDots(IntLanes* dots, const std::byte* rows,
                                                     uint64_t row_bytes, uint32_t /*cols*/,
                                                     const std::byte* codes, uint32_t g) {
  for (uint32_t r = 0; r < kRows; ++r) dots[r] = IntZero();
  ForEachPair<kKind>(codes, g, [&](uint32_t pair, IntLanes w) {
#pragma GCC unroll 8
    for (uint32_t r = 0; r < kRows; ++r) {
      const auto* a = reinterpret_cast<const int16_t*>(rows + r * row_bytes) + g * kQuantBlock;
      dots[r] = DotPairs(dots[r], BroadcastPair(a + 2 * pair), w);
    }
  });
}

}  // namespace
}  // namespace corpusd
