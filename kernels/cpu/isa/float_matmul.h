// kernels/cpu/isa/float_matmul.h -- matrix product in float32 FMA over Lanes: a weight panel is
// expanded once into scratch [inputs][16] and used for every row of the task; one or two rows skip
// the scratch. Every output is one chain of FMAs over its inputs in ascending order, in either path
// and any cut, so its bits depend on nothing else. Included after vector_math.h by one translation
// unit.
#pragma once

#include "kernels/cpu/cpu_kernels.h"

namespace corpusd {
namespace {

// A panel of 256 inputs is 16 KiB: it stays in L1 beside a tile's rows while the rows pass by.
constexpr uint32_t kDepthBlock = 256;
constexpr uint32_t kDirectRows = 2;
constexpr uint64_t kFloatScratchBytes = kDepthBlock * kLanes * sizeof(float);

// c[kRows][16] (+)= a[kRows][depth] * b[depth][16]
template <uint32_t kRows>
inline void Tile(const float* a, size_t a_stride, const float* b, uint32_t depth, float* c,
                 size_t c_stride, bool add, size_t b_stride) {
  Lanes sums[kRows];
#pragma GCC unroll 16
  for (uint32_t r = 0; r < kRows; ++r) sums[r] = add ? Load(c + r * c_stride) : Zero();
  for (uint32_t k = 0; k < depth; ++k) {
    const Lanes w = Load(b + k * b_stride);
#pragma GCC unroll 16
    for (uint32_t r = 0; r < kRows; ++r) {
      sums[r] = Fma(BroadcastFrom(a + r * a_stride + k), w, sums[r]);
    }
  }
#pragma GCC unroll 16
  for (uint32_t r = 0; r < kRows; ++r) Store(c + r * c_stride, sums[r]);
}

template <uint32_t kRows>
inline void TailTile(uint32_t rows, const float* a, size_t a_stride, const float* b, uint32_t depth,
                     float* c, size_t c_stride, bool add, size_t b_stride) {
  if constexpr (kRows > 0) {
    if (rows == kRows) return Tile<kRows>(a, a_stride, b, depth, c, c_stride, add, b_stride);
    TailTile<kRows - 1>(rows, a, a_stride, b, depth, c, c_stride, add, b_stride);
  }
}

// Any number of rows, in tiles. Row k of b is at b + k * b_stride.
void FloatGemm(uint32_t rows, const float* a, size_t a_stride, const float* b, uint32_t depth,
               float* c, size_t c_stride, bool add, size_t b_stride = kLanes) {
  uint32_t r = 0;
  for (; r + kTileRows <= rows; r += kTileRows) {
    Tile<kTileRows>(a + r * a_stride, a_stride, b, depth, c + r * c_stride, c_stride, add,
                    b_stride);
  }
  TailTile<kTileRows - 1>(rows - r, a + r * a_stride, a_stride, b, depth, c + r * c_stride,
                          c_stride, add, b_stride);
}

// c[kRows][16 * kVectors] = a[kRows][depth] * b[depth][b_stride], outputs as chains of their own.
template <uint32_t kRows, uint32_t kVectors>
inline void WideTile(const float* a, size_t a_stride, const float* b, uint32_t depth, float* c,
                     size_t c_stride, size_t b_stride) {
  Lanes sums[kRows][kVectors];
#pragma GCC unroll 8
  for (uint32_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (uint32_t v = 0; v < kVectors; ++v) sums[r][v] = Zero();
  }
  for (uint32_t k = 0; k < depth; ++k) {
    Lanes w[kVectors];
#pragma GCC unroll 4
    for (uint32_t v = 0; v < kVectors; ++v) w[v] = Load(b + k * b_stride + v * kLanes);
#pragma GCC unroll 8
    for (uint32_t r = 0; r < kRows; ++r) {
      const Lanes x = BroadcastFrom(a + r * a_stride + k);
#pragma GCC unroll 4
      for (uint32_t v = 0; v < kVectors; ++v) sums[r][v] = Fma(x, w[v], sums[r][v]);
    }
  }
#pragma GCC unroll 8
  for (uint32_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (uint32_t v = 0; v < kVectors; ++v) Store(c + r * c_stride + v * kLanes, sums[r][v]);
  }
}

// Rows [0, rows) below kRows at once, as many as there are.
template <uint32_t kRows, uint32_t kVectors>
inline void WideTail(uint32_t rows, const float* a, size_t a_stride, const float* b, uint32_t depth,
                     float* c, size_t c_stride, size_t b_stride) {
  if constexpr (kRows > 0) {
    if (rows == kRows) {
      return WideTile<kRows, kVectors>(a, a_stride, b, depth, c, c_stride, b_stride);
    }
    WideTail<kRows - 1, kVectors>(rows, a, a_stride, b, depth, c, c_stride, b_stride);
  }
}

// c[rows][cols] = a[rows][depth] * b[depth][cols], cols a multiple of 16. Several columns at once,
// for the same bits as one: few rows alone would wait for each other's sums, and many would load a
// factor a multiplication.
inline void MatrixGemm(uint32_t rows, const float* a, size_t a_stride, const float* b,
                       uint32_t depth, float* c, uint32_t cols) {
  constexpr bool kMany = kTileRows > 12;  // what the registers hold
  constexpr uint32_t kVectors = kMany ? 4 : 2;
  constexpr uint32_t kRows = kMany ? 6 : 3;
  uint32_t i = 0;
  for (; (kMany || rows <= kRows) && i + kVectors * kLanes <= cols; i += kVectors * kLanes) {
    uint32_t r = 0;
    for (; r + kRows <= rows; r += kRows) {
      WideTile<kRows, kVectors>(a + r * a_stride, a_stride, b + i, depth, c + size_t{r} * cols + i,
                                cols, cols);
    }
    WideTail<kRows - 1, kVectors>(rows - r, a + r * a_stride, a_stride, b + i, depth,
                                  c + size_t{r} * cols + i, cols, cols);
  }
  for (; i < cols; i += kLanes) {
    FloatGemm(rows, a, a_stride, b + i, depth, c + i, cols, false, cols);
  }
}

// Calls emit(k, w) for the inputs [first, first + count) of a panel in order, w the 16 outputs'
// weights. REQUIRES: first and count multiples of 32, or count reaching the last input.
template <typename Emit>
inline void ForEachQ4(const std::byte* panel, uint32_t cols, uint32_t first, uint32_t count,
                      Emit emit) {
  const std::byte* codes = panel + PackedScaleBytes(PackedKind::kQ4, cols);
  for (uint32_t k = first; k < first + count; k += 8) {
    const std::byte* scales = panel + size_t{k / kQuantBlock} * 64;
    const Lanes d = LoadHalf(scales);
    const Lanes m = LoadHalf(scales + 32);
    const IntLanes v = LoadInt(codes + size_t{k} * 8);
    emit(k + 0, Fma(NibbleToFloat<0>(v), d, m));
    emit(k + 1, Fma(NibbleToFloat<16>(v), d, m));
    emit(k + 2, Fma(NibbleToFloat<4>(v), d, m));
    emit(k + 3, Fma(NibbleToFloat<20>(v), d, m));
    emit(k + 4, Fma(NibbleToFloat<8>(v), d, m));
    emit(k + 5, Fma(NibbleToFloat<24>(v), d, m));
    emit(k + 6, Fma(NibbleToFloat<12>(v), d, m));
    emit(k + 7, Fma(NibbleToFloat<28>(v), d, m));
  }
}

template <typename Emit>
inline void ForEachQ8(const std::byte* panel, uint32_t cols, uint32_t first, uint32_t count,
                      Emit emit) {
  const std::byte* codes = panel + PackedScaleBytes(PackedKind::kQ8, cols);
  for (uint32_t k = first; k < first + count; k += 4) {
    const Lanes d = LoadHalf(panel + size_t{k / kQuantBlock} * 32);
    const IntLanes v = LoadInt(codes + size_t{k} * kLanes);
    emit(k + 0, Mul(ByteToFloat<0>(v), d));
    emit(k + 1, Mul(ByteToFloat<1>(v), d));
    emit(k + 2, Mul(ByteToFloat<2>(v), d));
    emit(k + 3, Mul(ByteToFloat<3>(v), d));
  }
}

template <typename Emit>
inline void ForEachWeight(const PackedWeight& weight, uint32_t panel_index, uint32_t first,
                          uint32_t count, Emit emit) {
  const std::byte* panel = weight.panel(panel_index);
  switch (weight.kind) {
    case PackedKind::kQ4:
      return ForEachQ4(panel, weight.cols, first, count, emit);
    case PackedKind::kQ8:
      return ForEachQ8(panel, weight.cols, first, count, emit);
    case PackedKind::kBf16:
      for (uint32_t k = first; k < first + count; k += 2) {
        const IntLanes v = LoadInt(panel + size_t{k / 2} * kLanes * 4);
        emit(k, LowBf16ToFloat(v));
        if (k + 1 < first + count) emit(k + 1, HighBf16ToFloat(v));
      }
      return;
    case PackedKind::kF32:
      for (uint32_t k = first; k < first + count; ++k) {
        emit(k, Load(reinterpret_cast<const float*>(panel) + size_t{k} * kLanes));
      }
      return;
  }
}

// One panel for one or two rows, straight from its codes.
template <uint32_t kRows>
inline void DirectPanel(const MatMulTask& task, uint32_t panel) {
  const uint32_t width = task.weight.rows - panel * kLanes;
  Lanes sums[kRows];
  const float* a[kRows];
  float* c[kRows];
  for (uint32_t r = 0; r < kRows; ++r) {
    a[r] = task.x + size_t{task.first_row + r} * task.x_stride;
    c[r] = task.out + size_t{task.first_row + r} * task.out_stride + panel * kLanes;
    sums[r] = task.accumulate ? LoadFirst(c[r], width) : Zero();
  }
  ForEachWeight(task.weight, panel, 0, task.weight.cols, [&](uint32_t k, Lanes w) {
    for (uint32_t r = 0; r < kRows; ++r) sums[r] = Fma(BroadcastFrom(a[r] + k), w, sums[r]);
  });
  for (uint32_t r = 0; r < kRows; ++r) StoreFirst(c[r], sums[r], width);
}

// The last panel of a weight whose rows are no multiple of 16: its outputs pass through a small
// copy.
void NarrowGemm(uint32_t rows, const float* a, size_t a_stride, const float* b, uint32_t depth,
                float* c, size_t c_stride, uint32_t width, bool add) {
  for (uint32_t r = 0; r < rows; ++r) {
    float copy[kLanes];
    Store(copy, LoadFirst(c + r * c_stride, width));
    Tile<1>(a + r * a_stride, a_stride, b, depth, copy, kLanes, add, kLanes);
    StoreFirst(c + r * c_stride, Load(copy), width);
  }
}

inline void FloatMatMul(const MatMulTask& task) noexcept {
  const PackedWeight& weight = task.weight;
  auto* expanded = reinterpret_cast<float*>(task.scratch);
  const float* a = task.x + size_t{task.first_row} * task.x_stride;
  for (uint32_t p = task.first_panel; p < task.first_panel + task.panels; ++p) {
    if (task.rows == 1) {
      DirectPanel<1>(task, p);
      continue;
    }
    if (task.rows == kDirectRows) {
      DirectPanel<kDirectRows>(task, p);
      continue;
    }
    float* c = task.out + size_t{task.first_row} * task.out_stride + p * kLanes;
    const uint32_t width = weight.rows - p * kLanes;
    for (uint32_t first = 0; first < weight.cols; first += kDepthBlock) {
      const uint32_t depth = MinU32(kDepthBlock, weight.cols - first);
      ForEachWeight(weight, p, first, depth,
                    [&](uint32_t k, Lanes w) { Store(expanded + size_t{k - first} * kLanes, w); });
      const bool add = task.accumulate || first > 0;
      if (width >= kLanes) {
        FloatGemm(task.rows, a + first, task.x_stride, expanded, depth, c, task.out_stride, add);
      } else {
        NarrowGemm(task.rows, a + first, task.x_stride, expanded, depth, c, task.out_stride, width,
                   add);
      }
    }
  }
}

inline uint64_t FloatMatMulScratchBytes() noexcept { return kFloatScratchBytes; }
inline uint64_t NoPreparedBytes(uint32_t /*rows*/, uint32_t /*cols*/) noexcept { return 0; }
inline void PrepareNothing(std::byte* /*prepared*/, const float* /*x*/, uint32_t /*x_stride*/,
                           uint32_t /*cols*/, uint32_t /*call_rows*/, uint32_t /*first_row*/,
                           uint32_t /*rows*/) noexcept {}

}  // namespace
}  // namespace corpusd
