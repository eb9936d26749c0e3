// kernels/cpu/isa/int16_groups.h -- products of few rows, as a decode makes, with 4- and 8-bit
// weights, straight from their codes: sums of 32 inputs are exact integers, then one float32 fused
// multiply-add with the weights' scale. A row is scaled so that its largest value takes 15 bits:
// the error, relative to the row's norm, is below that of bfloat16 by a factor of five or more.
// Groups are added in ascending order, so a row's bits depend on nothing else. Included after
// float_matmul.h (which takes the other weights) and int16_tile.h by one translation unit.
#pragma once

namespace corpusd {
namespace {

// Calls of up to so many rows come here: a decode, and a batch of them.
constexpr uint32_t kInt16FewRows = 16;
constexpr float kInt16Limit = 32767.0f;
constexpr float kSmallestRow = 1e-30f;  // rows and weights below count as zeros

// A prepared row: cols codes; per 32 of them their sum, as a float; the scale of the row.
constexpr uint64_t GroupRowBytes(uint32_t cols) {
  return (uint64_t{cols} * 2 + (uint64_t{cols} / kQuantBlock + 1) * 4 + 63) / 64 * 64;
}
inline uint64_t PreparedGroupBytes(uint32_t rows, uint32_t cols) {
  return cols % kQuantBlock == 0 ? rows * GroupRowBytes(cols) : 0;
}

void PrepareGroupRows(std::byte* prepared, const float* x, uint32_t x_stride, uint32_t cols,
                      uint32_t first_row, uint32_t rows) {
  if (cols % kQuantBlock != 0) return;
  for (uint32_t n = first_row; n < first_row + rows; ++n) {
    const float* a = x + size_t{n} * x_stride;
    auto* codes = reinterpret_cast<int16_t*>(prepared + n * GroupRowBytes(cols));
    auto* sums = reinterpret_cast<float*>(codes + cols);
    Lanes top = Zero();
    Lanes spoiled = Zero();  // stays zero while all inputs are finite, else not a number
    for (uint32_t k = 0; k < cols; k += kLanes) {
      const Lanes v = Load(a + k);
      top = Max(top, Absolute(v));
      spoiled = Fma(v, Zero(), spoiled);
    }
    const float largest = ReduceMax(top);
    // Below the normal range the inverse would be infinite: such a row counts as zeros.
    const Lanes inverse = Broadcast(largest < kSmallestRow ? 0.0f : kInt16Limit / largest);
    for (uint32_t k = 0; k < cols; k += kQuantBlock) {
      const Lanes q0 = RoundToInt(Mul(Load(a + k), inverse));
      const Lanes q1 = RoundToInt(Mul(Load(a + k + kLanes), inverse));
      StoreInt16(codes + k, q0);
      StoreInt16(codes + k + kLanes, q1);
      sums[k / kQuantBlock] = ReduceAdd(Add(q0, q1));  // below 2^20: exact in any order
    }
    // Codes cannot say that an input is not finite: the scale does, for every output of the row.
    sums[cols / kQuantBlock] =
        (largest < kSmallestRow ? 0.0f : largest / kInt16Limit) + ReduceAdd(spoiled);
  }
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

template <PackedKind kKind>
inline Lanes GroupScale(const std::byte* panel, uint32_t g) {
  return LoadHalf(panel + size_t{g} * (kKind == PackedKind::kQ4 ? 64 : 32));
}
inline Lanes GroupMinimum(const std::byte* panel, uint32_t g) {
  return LoadHalf(panel + size_t{g} * 64 + 32);
}

struct GroupRows {
  const std::byte* data;  // of the task's first row
  uint32_t cols;
  const int16_t* codes(uint32_t r) const {
    return reinterpret_cast<const int16_t*>(data + r * GroupRowBytes(cols));
  }
  const float* sums(uint32_t r) const { return reinterpret_cast<const float*>(codes(r) + cols); }
  float scale(uint32_t r) const { return sums(r)[cols / kQuantBlock]; }
};

// Asks for the bytes that are needed some groups later, of this panel or the one behind it: the
// processor's own foresight ends at the borders of 4 KiB.
template <PackedKind kKind>
inline __attribute__((always_inline)) void FetchAhead(const std::byte* panel, uint32_t g) {
  constexpr size_t kGroupBytes = kKind == PackedKind::kQ4 ? 320 : 544;  // with its scales
  constexpr size_t kAhead = 4096;
  const std::byte* ahead = panel + g * kGroupBytes + kAhead;
#pragma GCC unroll 9
  for (size_t i = 0; i < kGroupBytes; i += 64) __builtin_prefetch(ahead + i);
}

// Rows [first, first + kRows) of a task times one panel.
template <PackedKind kKind, uint32_t kRows>
inline void GroupPanel(const MatMulTask& task, const GroupRows& rows, uint32_t first, uint32_t p) {
  constexpr uint32_t kChains = kRows == 1 ? kInt16Chains : 1;
  const std::byte* panel = task.weight.panel(p);
  const std::byte* codes = panel + PackedScaleBytes(kKind, task.weight.cols);
  Lanes totals[kRows];
  for (uint32_t r = 0; r < kRows; ++r) totals[r] = Zero();
  for (uint32_t g = 0; g < task.weight.cols / kQuantBlock; ++g) {
    FetchAhead<kKind>(panel, g);
    IntLanes dots[kRows][kChains];
    for (uint32_t r = 0; r < kRows; ++r) {
      for (uint32_t c = 0; c < kChains; ++c) dots[r][c] = IntZero();
    }
    ForEachPair<kKind>(codes, g, [&](uint32_t pair, IntLanes w) {
#pragma GCC unroll 8
      for (uint32_t r = 0; r < kRows; ++r) {
        const int16_t* a = rows.codes(first + r) + g * kQuantBlock + 2 * pair;
        dots[r][pair % kChains] = DotPairs(dots[r][pair % kChains], BroadcastPair(a), w);
      }
    });
    const Lanes d = GroupScale<kKind>(panel, g);
    Lanes m = d;
    if constexpr (kKind == PackedKind::kQ4) m = GroupMinimum(panel, g);
    for (uint32_t r = 0; r < kRows; ++r) {
      for (uint32_t c = 1; c < kChains; ++c) dots[r][0] = AddInt(dots[r][0], dots[r][c]);
      totals[r] = Fma(ToFloat(dots[r][0]), d, totals[r]);
      if constexpr (kKind == PackedKind::kQ4) {
        totals[r] = Fma(m, BroadcastFrom(rows.sums(first + r) + g), totals[r]);
      }
    }
  }
  const uint32_t width = task.weight.rows - p * kLanes;
  for (uint32_t r = 0; r < kRows; ++r) {
    float* target = task.out + size_t{task.first_row + first + r} * task.out_stride + p * kLanes;
    Lanes result = Mul(totals[r], Broadcast(rows.scale(first + r)));
    if (task.accumulate) result = Add(LoadFirst(target, width), result);
    StoreFirst(target, result, width);
  }
}

template <PackedKind kKind, uint32_t kRows>
inline void GroupTail(const MatMulTask& task, const GroupRows& rows, uint32_t first, uint32_t p) {
  if constexpr (kRows > 0) {
    if (task.rows - first == kRows) return GroupPanel<kKind, kRows>(task, rows, first, p);
    GroupTail<kKind, kRows - 1>(task, rows, first, p);
  }
}

template <PackedKind kKind>
void GroupProduct(const MatMulTask& task) {
  const uint32_t cols = task.weight.cols;
  const GroupRows rows{task.prepared + task.first_row * GroupRowBytes(cols), cols};
  for (uint32_t p = task.first_panel; p < task.first_panel + task.panels; ++p) {
    uint32_t r = 0;
    for (; r + kInt16DirectRows <= task.rows; r += kInt16DirectRows) {
      GroupPanel<kKind, kInt16DirectRows>(task, rows, r, p);
    }
    GroupTail<kKind, kInt16DirectRows - 1>(task, rows, r, p);
  }
}

// REQUIRES: rows prepared by PrepareGroupRows, or a kind that is not codes.
inline void GroupMatMul(const MatMulTask& task) {
  if (task.weight.kind == PackedKind::kQ4) return GroupProduct<PackedKind::kQ4>(task);
  if (task.weight.kind == PackedKind::kQ8) return GroupProduct<PackedKind::kQ8>(task);
  FloatMatMul(task);
}

}  // namespace
}  // namespace corpusd
