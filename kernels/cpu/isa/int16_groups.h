// kernels/cpu/isa/int16_groups.h -- products of few rows, as a decode makes, with 4- and 8-bit
// weights, straight from their codes: sums of 32 inputs are exact integers, then one float32 fused
// multiply-add with the weights' scale. A row is scaled so that its largest value takes 15 bits:
// the error, relative to the row's norm, is below that of bfloat16 by a factor of five or more.
// Groups are added in ascending order, so a row's bits depend on nothing else: every table gives
// the same. Included after float_matmul.h (which takes the other weights) and group_words.h or
// group_bytes.h (how a group's codes are stored and multiplied) by one translation unit.
#pragma once

namespace corpusd {
namespace {

constexpr float kInt16Limit = 32767.0f;
constexpr float kSmallestRow = 1e-30f;  // rows and weights below count as zeros

inline uint64_t PreparedGroupBytes(uint32_t rows, uint32_t cols) {
  return cols % kQuantBlock == 0 ? rows * GroupRowBytes(cols) : 0;
}

void PrepareGroupRows(std::byte* prepared, const float* x, uint32_t x_stride, uint32_t cols,
                      uint32_t first_row, uint32_t rows) {
  if (cols % kQuantBlock != 0) return;
  for (uint32_t n = first_row; n < first_row + rows; ++n) {
    const float* a = x + size_t{n} * x_stride;
    std::byte* row = prepared + n * GroupRowBytes(cols);
    auto* sums = reinterpret_cast<float*>(row + GroupSumsOffset(cols));
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
      sums[k / kQuantBlock] = StoreGroup(row, cols, k / kQuantBlock, q0, q1);
    }
    // Codes cannot say that an input is not finite: the scale does, for every output of the row.
    sums[cols / kQuantBlock] =
        (largest < kSmallestRow ? 0.0f : largest / kInt16Limit) + ReduceAdd(spoiled);
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
  const std::byte* row(uint32_t r) const { return data + r * GroupRowBytes(cols); }
  const float* sums(uint32_t r) const {
    return reinterpret_cast<const float*>(row(r) + GroupSumsOffset(cols));
  }
  float scale(uint32_t r) const { return sums(r)[cols / kQuantBlock]; }
};

// Asks for the bytes that are needed some groups later, of these panels or what is read behind
// them: the processor's own foresight ends at the borders of 4 KiB.
template <PackedKind kKind>
inline __attribute__((always_inline)) void FetchAhead(const MatMulTask& task,
                                                      const std::byte* panel, uint32_t g) {
  constexpr size_t kGroupBytes = kKind == PackedKind::kQ4 ? 320 : 544;  // with its scales
  constexpr size_t kAhead = 8192;
  const std::byte* end = task.weight.panel(task.first_panel + task.panels);
  const std::byte* ahead = panel + g * kGroupBytes + kAhead;
  if (ahead >= end && task.read_next != nullptr) ahead = task.read_next + (ahead - end);
#pragma GCC unroll 9
  for (size_t i = 0; i < kGroupBytes; i += 64) __builtin_prefetch(ahead + i);
}

// Rows [first, first + kRows) of a task times one panel.
template <PackedKind kKind, uint32_t kRows>
inline void GroupPanel(const MatMulTask& task, const GroupRows& rows, uint32_t first, uint32_t p) {
  const std::byte* panel = task.weight.panel(p);
  const std::byte* codes = panel + PackedScaleBytes(kKind, task.weight.cols);
  Lanes totals[kRows];
  for (uint32_t r = 0; r < kRows; ++r) totals[r] = Zero();
  for (uint32_t g = 0; g < task.weight.cols / kQuantBlock; ++g) {
    FetchAhead<kKind>(task, panel, g);
    IntLanes dots[kRows];
    GroupDots<kKind, kRows>(dots, rows.row(first), GroupRowBytes(rows.cols), rows.cols, codes, g);
    const Lanes d = GroupScale<kKind>(panel, g);
    Lanes m = d;
    if constexpr (kKind == PackedKind::kQ4) m = GroupMinimum(panel, g);
    for (uint32_t r = 0; r < kRows; ++r) {
      totals[r] = Fma(ToFloat(dots[r]), d, totals[r]);
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
