// kernels/cpu/isa/int16_blocks.h -- products of many rows, as a prefill makes, with weights of any
// kind: rows and weights become int16 with one scale per 384 inputs, and the sum over those inputs
// is an exact 32-bit integer. It cannot overflow: by the inequality of Cauchy and Schwarz it is at
// most the product of the two norms, and the codes are scaled by their norms, not by their largest
// values. The error is a third of that of rounding both sides to bfloat16, or less. Blocks of
// inputs are added in ascending order, so a row's bits depend on nothing else. Included after
// int16_groups.h by one translation unit.
#pragma once

namespace corpusd {
namespace {

constexpr uint32_t kInt16DepthMax = 384;
constexpr uint32_t kInt16PanelElements = kInt16DepthMax * kLanes;  // expanded, 12 KiB
// 32767 * 65000 < 2^31, with room for the rounding of both.
constexpr float kRowNorm = 32767.0f;
constexpr float kWeightNorm = 65000.0f;
constexpr float kSmallestNorm = 1e-15f;

// How a row of `cols` inputs is cut: equal blocks, multiples of 32, the last one shorter.
struct DepthCut {
  uint32_t blocks, depth, padded;
};
constexpr DepthCut CutDepth(uint32_t cols) {
  const uint32_t padded = (cols + kQuantBlock - 1) / kQuantBlock * kQuantBlock;
  const uint32_t wanted = (padded + kInt16DepthMax - 1) / kInt16DepthMax;
  const uint32_t depth = (padded / kQuantBlock + wanted - 1) / wanted * kQuantBlock;
  return {(padded + depth - 1) / depth, depth, padded};
}
// A prepared row: codes of all blocks, zeros past the last input; the scales of the blocks.
constexpr uint64_t BlockRowBytes(uint32_t cols) {
  const DepthCut cut = CutDepth(cols);
  return (uint64_t{cut.padded} * 2 + cut.blocks * 4 + 63) / 64 * 64;
}

// codes[depth] = a[count] / scale, rounded; the norm of the codes is kRowNorm. RETURNS the scale,
// not a number if an input is not finite.
inline float PrepareBlock(int16_t* codes, const float* a, uint32_t count, uint32_t depth) {
  Lanes top = Zero();
  Lanes spoiled = Zero();  // stays zero while all inputs are finite, else not a number
  for (uint32_t k = 0; k < count; k += kLanes) {
    const Lanes v = LoadFirst(a + k, count - k);
    top = Max(top, Absolute(v));
    spoiled = Fma(v, Zero(), spoiled);
  }
  const float largest = ReduceMax(top);
  // Scaled by the largest value first, so that no square leaves the range of a float.
  const Lanes inverse = Broadcast(largest < kSmallestRow ? 0.0f : 1.0f / largest);
  Lanes squares = Zero();
  for (uint32_t k = 0; k < count; k += kLanes) {
    const Lanes v = Mul(LoadFirst(a + k, count - k), inverse);
    squares = Fma(v, v, squares);
  }
  const float norm = __builtin_sqrtf(ReduceAdd(squares));  // 1 to 20, or 0
  const Lanes factor = Broadcast(norm == 0 ? 0.0f : kRowNorm / norm);
  for (uint32_t k = 0; k < depth; k += kLanes) {
    const Lanes v = k < count ? LoadFirst(a + k, count - k) : Zero();
    StoreInt16(codes + k, Mul(Mul(v, inverse), factor));
  }
  return (largest < kSmallestRow ? 0.0f : largest * (norm / kRowNorm)) + ReduceAdd(spoiled);
}

void PrepareBlockRows(std::byte* prepared, const float* x, uint32_t x_stride, uint32_t cols,
                      uint32_t first_row, uint32_t rows) {
  const DepthCut cut = CutDepth(cols);
  for (uint32_t n = first_row; n < first_row + rows; ++n) {
    auto* codes = reinterpret_cast<int16_t*>(prepared + n * BlockRowBytes(cols));
    auto* scales = reinterpret_cast<float*>(codes + cut.padded);
    for (uint32_t b = 0; b < cut.blocks; ++b) {
      const uint32_t first = b * cut.depth;
      scales[b] =
          PrepareBlock(codes + first, x + size_t{n} * x_stride + first,
                       MinU32(cut.depth, cols - first), MinU32(cut.depth, cut.padded - first));
    }
  }
}

// An int16 in both halves of each lane.
inline IntLanes TwiceInt16(Lanes v) { return RoundPairs(v, v); }
inline Lanes InverseOfNorm(Lanes norm) {
  return ZeroBelow(Div(Broadcast(kWeightNorm), norm), norm, Broadcast(kSmallestNorm));
}

// A panel's inputs [first, first + depth) as int16 pairs [depth / 2][16][2]. scales[16]: weight =
// code * scale. For weights that are codes the norm is bounded from their scales (it is at most
// twice too large) and a code becomes int16 by one multiplication in 16 bits.
template <PackedKind kKind>
inline void ExpandCodes(const PackedWeight& weight, uint32_t p, uint32_t first, uint32_t depth,
                        int16_t* out, float* scales) {
  const std::byte* panel = weight.panel(p);
  const std::byte* codes = panel + PackedScaleBytes(kKind, weight.cols);
  const uint32_t group = first / kQuantBlock;
  const uint32_t groups = depth / kQuantBlock;
  Lanes squares = Zero();
  for (uint32_t g = group; g < group + groups; ++g) {
    Lanes top = GroupScale<kKind>(panel, g);
    if constexpr (kKind == PackedKind::kQ4) {
      const Lanes minimum = GroupMinimum(panel, g);
      top = Max(Absolute(minimum), Absolute(Fma(top, Broadcast(15.0f), minimum)));
    } else {
      top = Mul(top, Broadcast(128.0f));
    }
    squares = Fma(top, top, squares);
  }
  const Lanes norm = Sqrt(Mul(squares, Broadcast(float{kQuantBlock})));
  const Lanes inverse = InverseOfNorm(norm);
  Store(scales, Mul(norm, Broadcast(1.0f / kWeightNorm)));
  // The largest value of a group is at most 65000 / sqrt(32): every product below has 15 bits.
  constexpr float kFactor = kKind == PackedKind::kQ4 ? 16.0f : 128.0f;
  const Lanes scaled = Mul(inverse, Broadcast(kFactor));
  for (uint32_t g = group; g < group + groups; ++g) {
    const IntLanes d = TwiceInt16(Mul(GroupScale<kKind>(panel, g), scaled));
    if constexpr (kKind == PackedKind::kQ4) {
      const IntLanes m = TwiceInt16(Mul(GroupMinimum(panel, g), inverse));
      for (uint32_t c = 0; c < 4; ++c, out += 8 * kLanes) {
        const IntLanes v = LoadInt(codes + (size_t{g} * 4 + c) * 64);
        StoreInt(out, MulAddHigh(HighNibblePairs<0>(v), d, m));
        StoreInt(out + 2 * kLanes, MulAddHigh(HighNibblePairs<4>(v), d, m));
        StoreInt(out + 4 * kLanes, MulAddHigh(HighNibblePairs<8>(v), d, m));
        StoreInt(out + 6 * kLanes, MulAddHigh(HighNibblePairs<12>(v), d, m));
      }
    } else {
      for (uint32_t c = 0; c < 8; ++c, out += 4 * kLanes) {
        const IntLanes v = LoadInt(codes + (size_t{g} * 8 + c) * 64);
        StoreInt(out, MulAddHigh(HighBytePairs<0>(v), d, IntZero()));
        StoreInt(out + 2 * kLanes, MulAddHigh(HighBytePairs<2>(v), d, IntZero()));
      }
    }
  }
}

// The same for weights that are floats.
inline void ExpandFloats(const PackedWeight& weight, uint32_t p, uint32_t first, uint32_t depth,
                         int16_t* out, float* scales) {
  const uint32_t count = MinU32(depth, weight.cols - first);
  Lanes squares = Zero();
  Lanes top = Zero();
  ForEachWeight(weight, p, first, count, [&](uint32_t, Lanes w) {
    squares = Fma(w, w, squares);
    top = Max(top, Absolute(w));
  });
  const Lanes norm = Sqrt(squares);
  const Lanes largest = Broadcast(kInt16Limit);
  // Where one weight is most of the norm, its code would not fit.
  const Lanes inverse = Min(InverseOfNorm(norm), Div(largest, Max(top, Broadcast(kSmallestNorm))));
  Store(scales, Max(Mul(norm, Broadcast(1.0f / kWeightNorm)), Div(top, largest)));
  Lanes even = Zero();
  ForEachWeight(weight, p, first, count, [&](uint32_t k, Lanes w) {
    const Lanes v = Mul(w, inverse);
    if (k % 2 == 0) even = v;
    if (k % 2 == 1) StoreInt(out + size_t{k - first} / 2 * 2 * kLanes, RoundPairs(even, v));
  });
  if (count % 2 == 1) StoreInt(out + size_t{count / 2} * 2 * kLanes, RoundPairs(even, Zero()));
  for (uint32_t pair = (count + 1) / 2; pair < depth / 2; ++pair) {
    StoreInt(out + size_t{pair} * 2 * kLanes, IntZero());
  }
}

inline void ExpandPanel(const PackedWeight& weight, uint32_t p, uint32_t first, uint32_t depth,
                        int16_t* out, float* scales) {
  if (weight.kind == PackedKind::kQ4) {
    return ExpandCodes<PackedKind::kQ4>(weight, p, first, depth, out, scales);
  }
  if (weight.kind == PackedKind::kQ8) {
    return ExpandCodes<PackedKind::kQ8>(weight, p, first, depth, out, scales);
  }
  ExpandFloats(weight, p, first, depth, out, scales);
}

// Panels next to each other times all rows of a task, over one block of inputs.
struct BlockBody {
  const int16_t* codes;  // of the task's first row
  const float* row_scales;
  size_t row_bytes;
  const int16_t* panels;
  const float* scales;  // of the panels
  uint32_t pairs;
  float* out;
  size_t out_stride;
  uint32_t width;  // outputs
  bool add;

  template <uint32_t kRows, uint32_t kPanels>
  void Run(uint32_t first_row) const {
    IntLanes dots[kRows][kPanels];
    DotTile<kRows, kPanels>(codes + first_row * (row_bytes / 2), row_bytes / 2, panels,
                            kInt16PanelElements, pairs, dots);
#pragma GCC unroll 16
    for (uint32_t r = 0; r < kRows; ++r) {
      const Lanes row_scale = BroadcastFrom(row_scales + (first_row + r) * (row_bytes / 4));
#pragma GCC unroll 2
      for (uint32_t p = 0; p < kPanels; ++p) {
        const uint32_t column = p * kLanes;
        if (column >= width) break;
        float* target = out + (first_row + r) * out_stride + column;
        const Lanes before = add ? LoadFirst(target, width - column) : Zero();
        const Lanes scale = Mul(Load(scales + column), row_scale);
        StoreFirst(target, Fma(ToFloat(dots[r][p]), scale, before), width - column);
      }
    }
  }
};

// REQUIRES: rows prepared by PrepareBlockRows.
inline void BlockMatMul(const MatMulTask& task) {
  const PackedWeight& weight = task.weight;
  const DepthCut cut = CutDepth(weight.cols);
  const size_t row_bytes = BlockRowBytes(weight.cols);
  auto* panels = reinterpret_cast<int16_t*>(task.scratch);
  auto* scales = reinterpret_cast<float*>(panels + kInt16TilePanels * kInt16PanelElements);
  const auto* codes = reinterpret_cast<const int16_t*>(task.prepared + task.first_row * row_bytes);
  const auto* row_scales = reinterpret_cast<const float*>(codes + cut.padded);
  const uint32_t end = task.first_panel + task.panels;
  for (uint32_t p = task.first_panel; p < end; p += kInt16TilePanels) {
    const uint32_t count = MinU32(kInt16TilePanels, end - p);
    for (uint32_t b = 0; b < cut.blocks; ++b) {
      const uint32_t first = b * cut.depth;
      const uint32_t depth = MinU32(cut.depth, cut.padded - first);
      for (uint32_t i = 0; i < count; ++i) {
        ExpandPanel(weight, p + i, first, depth, panels + i * kInt16PanelElements,
                    scales + i * kLanes);
      }
      const BlockBody body = {
          .codes = codes + first,
          .row_scales = row_scales + b,
          .row_bytes = row_bytes,
          .panels = panels,
          .scales = scales,
          .pairs = depth / 2,
          .out = task.out + size_t{task.first_row} * task.out_stride + p * kLanes,
          .out_stride = task.out_stride,
          .width = weight.rows - p * kLanes,
          .add = task.accumulate || b > 0};
      if (count == kInt16TilePanels) {
        ForEachRowTile<kInt16TilePanels>(task.rows, body);
      } else {
        ForEachRowTile<1>(task.rows, body);
      }
    }
  }
}

uint64_t Int16PreparedBytes(uint32_t rows, uint32_t cols) noexcept {
  return rows <= kFewRows ? PreparedGroupBytes(rows, cols) : rows * BlockRowBytes(cols);
}
void Int16PrepareRows(std::byte* prepared, const float* x, uint32_t x_stride, uint32_t cols,
                      uint32_t call_rows, uint32_t first_row, uint32_t rows) noexcept {
  if (call_rows <= kFewRows) {
    return PrepareGroupRows(prepared, x, x_stride, cols, first_row, rows);
  }
  PrepareBlockRows(prepared, x, x_stride, cols, first_row, rows);
}
void Int16MatMul(const MatMulTask& task) noexcept {
  if (task.call_rows <= kFewRows) return GroupMatMul(task);
  BlockMatMul(task);
}
uint64_t Int16MatMulScratchBytes() noexcept {
  constexpr uint64_t kBytes =
      kInt16TilePanels * (kInt16PanelElements * sizeof(int16_t) + kLanes * sizeof(float));
  return kBytes > kFloatScratchBytes ? kBytes : kFloatScratchBytes;
}

}  // namespace
}  // namespace corpusd
