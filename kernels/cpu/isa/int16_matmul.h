// kernels/cpu/isa/int16_matmul.h -- matrix product of int16 activations with 4- and 8-bit weights:
// sums of 32 inputs are exact integers, then one float32 fused multiply-add with the weights'
// scale. A row is scaled so that its largest value takes 15 bits: the error, relative to the row's
// norm, is below that of bfloat16 by a factor of five or more. Groups are added in ascending order
// in every path, so a row's bits depend on nothing else. Included after float_matmul.h (which takes
// the other weights) and int16_tile.h by one translation unit.
#pragma once

namespace corpusd {
namespace {

// A panel of 256 inputs is 8 KiB, or 16 KiB as floats: it stays in L1 beside the rows of a tile.
constexpr uint32_t kInt16DepthBlock = 256;
constexpr uint32_t kInt16GroupElements = kQuantBlock * kLanes;  // expanded weights of 32 inputs
constexpr uint32_t kInt16PanelElements = kInt16DepthBlock * kLanes * (kFloatDots ? 2 : 1);
constexpr uint32_t kInt16ScaleFloats = kInt16DepthBlock / kQuantBlock * 2 * kLanes;
constexpr uint32_t kInt16DirectRows = 3;  // so few rows skip the expanded panel
constexpr uint64_t kInt16ScratchBytes =
    kInt16TilePanels * (kInt16PanelElements * sizeof(int16_t) + kInt16ScaleFloats * sizeof(float));
constexpr float kInt16Limit = 32767.0f;

// A prepared row: cols codes; per 32 of them their sum, as a float; the scale of the row; padding;
// where dot products run in float32, the codes again as floats.
constexpr uint64_t PreparedCodeBytes(uint32_t cols) {
  return (uint64_t{cols} * 2 + (uint64_t{cols} / kQuantBlock + 1) * 4 + 63) / 64 * 64;
}
constexpr uint64_t PreparedRowBytes(uint32_t cols) {
  return PreparedCodeBytes(cols) + (kFloatDots ? uint64_t{cols} * 4 : 0);
}
uint64_t PreparedInt16Bytes(uint32_t rows, uint32_t cols) noexcept {
  return cols % kQuantBlock == 0 ? rows * PreparedRowBytes(cols) : 0;
}

void PrepareInt16Rows(std::byte* prepared, const float* x, uint32_t x_stride, uint32_t cols,
                      uint32_t first_row, uint32_t rows) noexcept {
  if (cols % kQuantBlock != 0) return;
  for (uint32_t n = first_row; n < first_row + rows; ++n) {
    const float* a = x + size_t{n} * x_stride;
    auto* codes = reinterpret_cast<int16_t*>(prepared + n * PreparedRowBytes(cols));
    auto* sums = reinterpret_cast<float*>(codes + cols);
    auto* floats =
        reinterpret_cast<float*>(prepared + n * PreparedRowBytes(cols) + PreparedCodeBytes(cols));
    Lanes top = Zero();
    Lanes spoiled = Zero();  // stays zero while all inputs are finite, else not a number
    for (uint32_t k = 0; k < cols; k += kLanes) {
      const Lanes v = Load(a + k);
      top = Max(top, Absolute(v));
      spoiled = Fma(v, Zero(), spoiled);
    }
    const float largest = ReduceMax(top);
    // Below the normal range the inverse would be infinite: such a row counts as zeros.
    const Lanes inverse = Broadcast(largest < 1e-30f ? 0.0f : kInt16Limit / largest);
    for (uint32_t k = 0; k < cols; k += kQuantBlock) {
      const Lanes q0 = RoundToInt(Mul(Load(a + k), inverse));
      const Lanes q1 = RoundToInt(Mul(Load(a + k + kLanes), inverse));
      StoreInt16(codes + k, q0);
      StoreInt16(codes + k + kLanes, q1);
      if constexpr (kFloatDots) {
        Store(floats + k, q0);
        Store(floats + k + kLanes, q1);
      }
      sums[k / kQuantBlock] = ReduceAdd(Add(q0, q1));  // below 2^20: exact in any order
    }
    // Codes cannot say that an input is not finite: the scale does, for every output of the row.
    sums[cols / kQuantBlock] =
        (largest < 1e-30f ? 0.0f : largest / kInt16Limit) + ReduceAdd(spoiled);
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

// total + dot * d (+ m * sum): the one place where groups are added, whatever the path.
template <PackedKind kKind>
inline Lanes AddGroup(Lanes total, IntLanes dot, Lanes d, Lanes m, const float* sum) {
  total = Fma(ToFloat(dot), d, total);
  if constexpr (kKind == PackedKind::kQ4) total = Fma(m, BroadcastFrom(sum), total);
  return total;
}

struct Int16Rows {
  const int16_t* codes;  // of the task's first row
  const float* sums;
  uint32_t cols;
  size_t stride_bytes;
  size_t code_stride() const { return stride_bytes / 2; }
  size_t sum_stride() const { return stride_bytes / 4; }
  const float* floats() const {
    return reinterpret_cast<const float*>(reinterpret_cast<const std::byte*>(codes) +
                                          PreparedCodeBytes(cols));
  }
  float scale(uint32_t r) const { return sums[r * sum_stride() + cols / kQuantBlock]; }
};

// totals[kRows][kPanels][16] += one group. A function of its own, so that the compiler gives all
// registers to the dot products.
template <PackedKind kKind, uint32_t kRows, uint32_t kPanels>
__attribute__((noinline)) void AddGroupTile(const int16_t* codes, size_t code_stride,
                                            const float* sums, size_t sum_stride, const int16_t* w,
                                            const float* scales, float* totals) {
  IntLanes dots[kRows][kPanels];
  DotTile<kRows, kPanels>(codes, code_stride, w, kInt16PanelElements, kQuantBlock / 2, dots);
#pragma GCC unroll 2
  for (uint32_t p = 0; p < kPanels; ++p) {
    const Lanes d = Load(scales + p * kInt16ScaleFloats);
    const Lanes m = Load(scales + p * kInt16ScaleFloats + kLanes);
#pragma GCC unroll 16
    for (uint32_t r = 0; r < kRows; ++r) {
      float* total = totals + (r * kPanels + p) * kLanes;
      Store(total, AddGroup<kKind>(Load(total), dots[r][p], d, m, sums + r * sum_stride));
    }
  }
}

// The same by float32 FMAs over integers: |sum| <= 32 * 15 * 32767 < 2^24, so every step is exact
// and the bits are those of AddGroupTile.
template <uint32_t kRows>
__attribute__((noinline)) void AddFloatGroupTile(const float* codes, size_t code_stride,
                                                 const float* sums, size_t sum_stride,
                                                 const float* w, const float* scales,
                                                 float* totals) {
  Lanes dots[kRows];
#pragma GCC unroll 16
  for (uint32_t r = 0; r < kRows; ++r) dots[r] = Zero();
#pragma GCC unroll 4
  for (uint32_t k = 0; k < kQuantBlock; ++k) {
    const Lanes v = Load(w + size_t{k} * kLanes);
#pragma GCC unroll 16
    for (uint32_t r = 0; r < kRows; ++r) {
      dots[r] = Fma(BroadcastFrom(codes + r * code_stride + k), v, dots[r]);
    }
  }
  const Lanes d = Load(scales);
  const Lanes m = Load(scales + kLanes);
#pragma GCC unroll 16
  for (uint32_t r = 0; r < kRows; ++r) {
    float* total = totals + r * kLanes;
    const Lanes sum = Fma(dots[r], d, Load(total));
    Store(total, Fma(m, BroadcastFrom(sums + r * sum_stride), sum));
  }
}

// Where the products of a depth block go: out is written by the last block only, before it the
// unscaled sums wait there.
struct Int16Block {
  const int16_t* panels;  // expanded
  const float* scales;
  uint32_t first_group, groups;
  bool first, last, accumulate;
};

template <PackedKind kKind>
struct Int16PanelBody {
  const Int16Rows& rows;
  const Int16Block& block;
  float* waiting;  // [rows][kInt16TilePanels * 16] between depth blocks
  float* out;
  size_t out_stride;
  uint32_t width;  // outputs

  template <uint32_t kRows, uint32_t kPanels>
  void Run(uint32_t first_row) const {
    alignas(64) float local[kRows * kPanels * kLanes];
    float* totals =
        block.first && block.last ? local : waiting + size_t{first_row} * kPanels * kLanes;
    if (block.first) {
      for (uint32_t i = 0; i < kRows * kPanels; ++i) Store(totals + i * kLanes, Zero());
    }
    for (uint32_t g = 0; g < block.groups; ++g) {
      const uint32_t group = block.first_group + g;
      if constexpr (kFloatDots && kKind == PackedKind::kQ4) {
        AddFloatGroupTile<kRows>(
            rows.floats() + first_row * rows.sum_stride() + size_t{group} * kQuantBlock,
            rows.sum_stride(), rows.sums + first_row * rows.sum_stride() + group, rows.sum_stride(),
            reinterpret_cast<const float*>(block.panels) + size_t{g} * kInt16GroupElements,
            block.scales + size_t{g} * 2 * kLanes, totals);
        continue;
      }
      AddGroupTile<kKind, kRows, kPanels>(
          rows.codes + first_row * rows.code_stride() + size_t{group} * kQuantBlock,
          rows.code_stride(), rows.sums + first_row * rows.sum_stride() + group, rows.sum_stride(),
          block.panels + size_t{g} * kInt16GroupElements, block.scales + size_t{g} * 2 * kLanes,
          totals);
    }
    if (!block.last) return;
    for (uint32_t r = 0; r < kRows; ++r) {
      for (uint32_t p = 0; p < kPanels; ++p) {
        if (p * kLanes >= width) break;
        Finish(out + (first_row + r) * out_stride + p * kLanes, width - p * kLanes,
               Load(totals + (r * kPanels + p) * kLanes), rows.scale(first_row + r),
               block.accumulate);
      }
    }
  }

  static void Finish(float* target, uint32_t count, Lanes total, float scale, bool accumulate) {
    Lanes result = Mul(total, Broadcast(scale));
    if (accumulate) result = Add(LoadFirst(target, count), result);
    StoreFirst(target, result, count);
  }
};

// A few rows straight from the codes of one panel.
template <PackedKind kKind, uint32_t kRows>
inline void Int16DirectPanel(const MatMulTask& task, const Int16Rows& rows, uint32_t p) {
  const std::byte* panel = task.weight.panel(p);
  const std::byte* codes = panel + PackedScaleBytes(kKind, task.weight.cols);
  Lanes totals[kRows];
  for (uint32_t r = 0; r < kRows; ++r) totals[r] = Zero();
  for (uint32_t g = 0; g < task.weight.cols / kQuantBlock; ++g) {
    IntLanes dots[kRows];
    for (uint32_t r = 0; r < kRows; ++r) dots[r] = IntZero();
    ForEachPair<kKind>(codes, g, [&](uint32_t pair, IntLanes w) {
#pragma GCC unroll 4
      for (uint32_t r = 0; r < kRows; ++r) {
        const int16_t* a = rows.codes + r * rows.code_stride() + g * kQuantBlock + 2 * pair;
        dots[r] = DotPairs(dots[r], BroadcastPair(a), w);
      }
    });
    const Lanes d = GroupScale<kKind>(panel, g);
    Lanes m = d;
    if constexpr (kKind == PackedKind::kQ4) m = GroupMinimum(panel, g);
    for (uint32_t r = 0; r < kRows; ++r) {
      totals[r] = AddGroup<kKind>(totals[r], dots[r], d, m, rows.sums + r * rows.sum_stride() + g);
    }
  }
  for (uint32_t r = 0; r < kRows; ++r) {
    float* c = task.out + size_t{task.first_row + r} * task.out_stride + p * kLanes;
    Int16PanelBody<kKind>::Finish(c, task.weight.rows - p * kLanes, totals[r], rows.scale(r),
                                  task.accumulate);
  }
}

template <PackedKind kKind>
inline void ExpandGroups(const PackedWeight& weight, uint32_t p, uint32_t first, uint32_t count,
                         int16_t* expanded, float* scales) {
  const std::byte* panel = weight.panel(p);
  const std::byte* codes = panel + PackedScaleBytes(kKind, weight.cols);
  for (uint32_t g = 0; g < count; ++g) {
    int16_t* target = expanded + size_t{g} * kInt16GroupElements;
    ForEachPair<kKind>(codes, first + g, [&](uint32_t pair, IntLanes w) {
      if constexpr (kFloatDots && kKind == PackedKind::kQ4) {
        auto* floats = reinterpret_cast<float*>(expanded) + size_t{g} * kInt16GroupElements;
        Store(floats + size_t{pair} * 2 * kLanes, NibbleToFloat<0>(w));
        Store(floats + (size_t{pair} * 2 + 1) * kLanes, NibbleToFloat<16>(w));
      } else {
        StoreInt(target + size_t{pair} * kPairElements, w);
      }
    });
    Store(scales + size_t{g} * 2 * kLanes, GroupScale<kKind>(panel, first + g));
    if constexpr (kKind == PackedKind::kQ4) {
      Store(scales + size_t{g} * 2 * kLanes + kLanes, GroupMinimum(panel, first + g));
    }
  }
}

// kPanels adjacent panels for all rows of the task.
template <PackedKind kKind, uint32_t kPanels>
void Int16Panels(const MatMulTask& task, const Int16Rows& rows, uint32_t p) {
  auto* panels = reinterpret_cast<int16_t*>(task.scratch);
  auto* scales = reinterpret_cast<float*>(panels + kInt16TilePanels * kInt16PanelElements);
  float* waiting = scales + kInt16TilePanels * kInt16ScaleFloats;
  const uint32_t cols = task.weight.cols;
  for (uint32_t first = 0; first < cols; first += kInt16DepthBlock) {
    const Int16Block block = {.panels = panels,
                              .scales = scales,
                              .first_group = first / kQuantBlock,
                              .groups = MinU32(kInt16DepthBlock, cols - first) / kQuantBlock,
                              .first = first == 0,
                              .last = first + kInt16DepthBlock >= cols,
                              .accumulate = task.accumulate};
    for (uint32_t i = 0; i < kPanels; ++i) {
      ExpandGroups<kKind>(task.weight, p + i, block.first_group, block.groups,
                          panels + i * kInt16PanelElements, scales + i * kInt16ScaleFloats);
    }
    const Int16PanelBody<kKind> body = {
        .rows = rows,
        .block = block,
        .waiting = waiting,
        .out = task.out + size_t{task.first_row} * task.out_stride + p * kLanes,
        .out_stride = task.out_stride,
        .width = task.weight.rows - p * kLanes};
    ForEachRowTile<kPanels>(task.rows, body);
  }
}

template <PackedKind kKind>
void Int16Product(const MatMulTask& task, const Int16Rows& rows) {
  uint32_t p = task.first_panel;
  const uint32_t end = task.first_panel + task.panels;
  if (task.rows <= kInt16DirectRows) {
    for (; p < end; ++p) {
      if (task.rows == 1) Int16DirectPanel<kKind, 1>(task, rows, p);
      if (task.rows == 2) Int16DirectPanel<kKind, 2>(task, rows, p);
      if (task.rows == 3) Int16DirectPanel<kKind, 3>(task, rows, p);
    }
    return;
  }
  for (; p + kInt16TilePanels <= end; p += kInt16TilePanels) {
    Int16Panels<kKind, kInt16TilePanels>(task, rows, p);
  }
  if (p < end) Int16Panels<kKind, 1>(task, rows, p);
}

// Rows of a task that run over one expansion of a panel.
constexpr uint32_t kInt16RowsMax = 192;

void Int16MatMul(const MatMulTask& task) noexcept {
  const PackedKind kind = task.weight.kind;
  if (kind != PackedKind::kQ4 && kind != PackedKind::kQ8) return FloatMatMul(task);
  const uint32_t cols = task.weight.cols;
  const size_t stride = PreparedRowBytes(cols);
  MatMulTask slice = task;
  for (uint32_t done = 0; done < task.rows; done += kInt16RowsMax) {
    slice.first_row = task.first_row + done;
    slice.rows = MinU32(kInt16RowsMax, task.rows - done);
    const auto* codes = reinterpret_cast<const int16_t*>(task.prepared + slice.first_row * stride);
    const Int16Rows rows = {codes, reinterpret_cast<const float*>(codes + cols), cols, stride};
    if (kind == PackedKind::kQ4) {
      Int16Product<PackedKind::kQ4>(slice, rows);
    } else {
      Int16Product<PackedKind::kQ8>(slice, rows);
    }
  }
}

// The expanded panels, and the sums that wait between depth blocks.
uint64_t Int16MatMulScratchBytes() noexcept {
  const uint64_t bytes =
      kInt16ScratchBytes + uint64_t{kInt16RowsMax} * kInt16TilePanels * kLanes * sizeof(float);
  return bytes > kFloatScratchBytes ? bytes : kFloatScratchBytes;
}

}  // namespace
}  // namespace corpusd
