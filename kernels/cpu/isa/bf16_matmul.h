// kernels/cpu/isa/bf16_matmul.h -- matrix product by bf16 dot products (vdpbf16ps). Activations are
// rounded to bf16; 4- and 8-bit weight codes are multiplied as the small integers they are, exact
// in bf16, and scaled per block of 32 inputs: acc += d * (x . q) + m * sum(x). Other weights are
// bf16 with scale 1. Every output is one such chain over its blocks in ascending order, in every
// path and any cut. Calls of few rows go to int16_groups.h. Included after that by one translation
// unit.
#pragma once

namespace corpusd {
namespace {

// Two panels of 256 inputs as bf16 pairs are 16 KiB of L1.
constexpr uint32_t kBf16Depth = 256;
constexpr uint32_t kBf16TileRows = 6;
constexpr uint32_t kBf16TilePanels = 2;
constexpr uint32_t kPairsABlock = kQuantBlock / 2;

inline uint32_t PaddedCols(uint32_t cols) {
  return (cols + kQuantBlock - 1) / kQuantBlock * kQuantBlock;
}
// A prepared row: padded inputs as bf16, then the sum of every block of 32 as float32.
inline size_t PreparedStride(uint32_t cols) {
  const size_t padded = PaddedCols(cols);
  return (padded * 2 + padded / kQuantBlock * 4 + 63) / 64 * 64;
}
// Tiles of 16 rows may read (never use) up to 31 rows past the last.
uint64_t Bf16PreparedBytes(uint32_t call_rows, uint32_t cols) noexcept {
  if (call_rows <= kInt16FewRows) return PreparedGroupBytes(call_rows, cols);
  return (uint64_t{call_rows} + 32) * PreparedStride(cols);
}

inline void StoreBf16(uint16_t* p, Lanes v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), (__m256i)_mm512_cvtneps_pbh(v.v));
}
inline Lanes LoadBf16(const uint16_t* p) {
  const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16))};
}
// Pairs (even, odd) as the dot product takes them, rounded.
inline __m512i PairsOf(Lanes even, Lanes odd) {
  const __m512i halves = (__m512i)_mm512_cvtne2ps_pbh(odd.v, even.v);
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                         8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, halves);
}
// The same where both are already exact in bf16: their upper halves.
inline __m512i ExactPairsOf(Lanes even, Lanes odd) {
  return _mm512_or_si512(_mm512_srli_epi32(_mm512_castps_si512(even.v), 16),
                         _mm512_and_si512(_mm512_castps_si512(odd.v),
                                          _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
}
inline Lanes Dot(Lanes sum, __m512i a, __m512i b) {
  return {_mm512_dpbf16_ps(sum.v, (__m512bh)a, (__m512bh)b)};
}
inline __m512i BroadcastBf16Pair(const uint16_t* p) {
  int pair;
  __builtin_memcpy(&pair, p, 4);
  return _mm512_set1_epi32(pair);
}

void Bf16PrepareRows(std::byte* prepared, const float* x, uint32_t x_stride, uint32_t cols,
                     uint32_t call_rows, uint32_t first_row, uint32_t rows) noexcept {
  if (call_rows <= kInt16FewRows) {
    return PrepareGroupRows(prepared, x, x_stride, cols, first_row, rows);
  }
  const size_t stride = PreparedStride(cols);
  const uint32_t padded = PaddedCols(cols);
  for (uint32_t r = first_row; r < first_row + rows; ++r) {
    auto* out = reinterpret_cast<uint16_t*>(prepared + r * stride);
    auto* sums = reinterpret_cast<float*>(out + padded);
    const float* source = x + size_t{r} * x_stride;
    for (uint32_t k = 0; k < padded; k += kQuantBlock) {
      for (uint32_t i = k; i < k + kQuantBlock; i += kLanes) {
        StoreBf16(out + i, i < cols ? LoadFirst(source + i, cols - i) : Zero());
      }
      sums[k / kQuantBlock] = ReduceAdd(Add(LoadBf16(out + k), LoadBf16(out + k + kLanes)));
    }
  }
}

// Codes 0 to 15 as bf16, twice: an index of five bits finds the code in its lower four.
inline __m512i NibbleTable() {
  alignas(64) static constexpr uint16_t kCodes[32] = {
      0x0000, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0, 0x4100, 0x4110, 0x4120,
      0x4130, 0x4140, 0x4150, 0x4160, 0x4170, 0x0000, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0,
      0x40c0, 0x40e0, 0x4100, 0x4110, 0x4120, 0x4130, 0x4140, 0x4150, 0x4160, 0x4170};
  return _mm512_load_si512(kCodes);
}

// A panel's inputs [first, first + depth) ready for the tiles.
struct ExpandedPanel {
  __m512i* pairs;  // [depth / 2]
  float* scales;   // [depth / 32][2][16]: scale, minimum
};

inline void ExpandBlocks(const PackedWeight& weight, uint32_t panel_index, uint32_t first,
                         uint32_t depth, ExpandedPanel out) {
  const std::byte* panel = weight.panel(panel_index);
  const std::byte* codes = panel + PackedScaleBytes(weight.kind, weight.cols);
  const __m512i table = NibbleTable();
  for (uint32_t k = first; k < first + depth; k += kQuantBlock) {
    float* scales = out.scales + size_t{(k - first) / kQuantBlock} * 2 * kLanes;
    __m512i* pairs = out.pairs + (k - first) / 2;
    Store(scales, Broadcast(1.0f));
    Store(scales + kLanes, Zero());
    switch (weight.kind) {
      case PackedKind::kQ4:
        Store(scales, LoadHalf(panel + size_t{k / kQuantBlock} * 64));
        Store(scales + kLanes, LoadHalf(panel + size_t{k / kQuantBlock} * 64 + 32));
        for (uint32_t c = 0; c < 4; ++c) {
          const __m512i v = LoadInt(codes + size_t{k + 8 * c} * 8).v;
          _mm512_store_si512(pairs + 4 * c, _mm512_permutexvar_epi16(v, table));
          _mm512_store_si512(pairs + 4 * c + 1,
                             _mm512_permutexvar_epi16(_mm512_srli_epi16(v, 4), table));
          _mm512_store_si512(pairs + 4 * c + 2,
                             _mm512_permutexvar_epi16(_mm512_srli_epi16(v, 8), table));
          _mm512_store_si512(pairs + 4 * c + 3,
                             _mm512_permutexvar_epi16(_mm512_srli_epi16(v, 12), table));
        }
        break;
      case PackedKind::kQ8:
        Store(scales, LoadHalf(panel + size_t{k / kQuantBlock} * 32));
        for (uint32_t c = 0; c < 8; ++c) {
          const IntLanes v = LoadInt(codes + size_t{k + 4 * c} * kLanes);
          _mm512_store_si512(pairs + 2 * c, ExactPairsOf(ByteToFloat<0>(v), ByteToFloat<1>(v)));
          _mm512_store_si512(pairs + 2 * c + 1, ExactPairsOf(ByteToFloat<2>(v), ByteToFloat<3>(v)));
        }
        break;
      case PackedKind::kBf16:
        for (uint32_t i = 0; i < kPairsABlock; ++i) {
          _mm512_store_si512(pairs + i, LoadInt(panel + size_t{k / 2 + i} * 64).v);
        }
        break;
      case PackedKind::kF32:  // inputs past the last are zero in the panel
        for (uint32_t i = 0; i < kPairsABlock; ++i) {
          const float* w = reinterpret_cast<const float*>(panel) + size_t{k + 2 * i} * kLanes;
          _mm512_store_si512(pairs + i, PairsOf(Load(w), Load(w + kLanes)));
        }
        break;
    }
  }
}

// c[kRows][16 * kPanels] (+)= rows a (prepared, from input `first`) times expanded panels.
template <uint32_t kRows, uint32_t kPanels>
inline void Bf16Tile(const std::byte* a, size_t a_stride, const float* a_sums,
                     const ExpandedPanel* panels, uint32_t depth, float* c, size_t c_stride,
                     uint32_t width, bool add) {
  Lanes sums[kRows][kPanels];
#pragma GCC unroll 16
  for (uint32_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (uint32_t p = 0; p < kPanels; ++p) {
      sums[r][p] = add ? LoadFirst(c + r * c_stride + p * kLanes, width - p * kLanes) : Zero();
    }
  }
  for (uint32_t block = 0; block < depth / kQuantBlock; ++block) {
    Lanes dots[kRows][kPanels];
#pragma GCC unroll 16
    for (uint32_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (uint32_t p = 0; p < kPanels; ++p) dots[r][p] = Zero();
    }
    const std::byte* inputs = a + size_t{block} * kQuantBlock * 2;
    for (uint32_t i = 0; i < kPairsABlock; ++i) {
      __m512i w[kPanels];
#pragma GCC unroll 4
      for (uint32_t p = 0; p < kPanels; ++p) w[p] = panels[p].pairs[block * kPairsABlock + i];
#pragma GCC unroll 16
      for (uint32_t r = 0; r < kRows; ++r) {
        const __m512i pair =
            BroadcastBf16Pair(reinterpret_cast<const uint16_t*>(inputs + r * a_stride) + 2 * i);
#pragma GCC unroll 4
        for (uint32_t p = 0; p < kPanels; ++p) dots[r][p] = Dot(dots[r][p], pair, w[p]);
      }
    }
#pragma GCC unroll 4
    for (uint32_t p = 0; p < kPanels; ++p) {
      const Lanes scale = Load(panels[p].scales + size_t{block} * 2 * kLanes);
      const Lanes minimum = Load(panels[p].scales + size_t{block} * 2 * kLanes + kLanes);
#pragma GCC unroll 16
      for (uint32_t r = 0; r < kRows; ++r) {
        const auto* row_sums = reinterpret_cast<const float*>(
            reinterpret_cast<const std::byte*>(a_sums) + r * a_stride);
        sums[r][p] = Fma(dots[r][p], scale, sums[r][p]);
        sums[r][p] = Fma(BroadcastFrom(row_sums + block), minimum, sums[r][p]);
      }
    }
  }
#pragma GCC unroll 16
  for (uint32_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (uint32_t p = 0; p < kPanels; ++p) {
      StoreFirst(c + r * c_stride + p * kLanes, sums[r][p], width - p * kLanes);
    }
  }
}

template <uint32_t kRows, uint32_t kPanels>
inline void Bf16TailTile(uint32_t rows, const std::byte* a, size_t a_stride, const float* a_sums,
                         const ExpandedPanel* panels, uint32_t depth, float* c, size_t c_stride,
                         uint32_t width, bool add) {
  if constexpr (kRows > 0) {
    if (rows == kRows) {
      return Bf16Tile<kRows, kPanels>(a, a_stride, a_sums, panels, depth, c, c_stride, width, add);
    }
    Bf16TailTile<kRows - 1, kPanels>(rows, a, a_stride, a_sums, panels, depth, c, c_stride, width,
                                     add);
  }
}

// All rows of the task times kPanels panels from `panel` on, one depth block after the other.
template <uint32_t kPanels>
void Bf16Panels(const MatMulTask& task, uint32_t panel) {
  const PackedWeight& weight = task.weight;
  const uint32_t padded = PaddedCols(weight.cols);
  const size_t stride = PreparedStride(weight.cols);
  const std::byte* a = task.prepared + task.first_row * stride;
  float* c = task.out + size_t{task.first_row} * task.out_stride + size_t{panel} * kLanes;
  const uint32_t width = weight.rows - panel * kLanes;
  ExpandedPanel panels[kPanels];
  auto* next = reinterpret_cast<__m512i*>(task.scratch);
  for (uint32_t p = 0; p < kPanels; ++p) {
    panels[p].pairs = next;
    panels[p].scales = reinterpret_cast<float*>(next + kBf16Depth / 2);
    next += kBf16Depth / 2 + kBf16Depth / kQuantBlock * 2;
  }
  for (uint32_t first = 0; first < padded; first += kBf16Depth) {
    const uint32_t depth = MinU32(kBf16Depth, padded - first);
    for (uint32_t p = 0; p < kPanels; ++p) ExpandBlocks(weight, panel + p, first, depth, panels[p]);
    const bool add = task.accumulate || first > 0;
    const auto* sums = reinterpret_cast<const float*>(a + size_t{padded} * 2) + first / kQuantBlock;
    for (uint32_t r = 0; r < task.rows; r += kBf16TileRows) {
      const std::byte* rows_a = a + r * stride + size_t{first} * 2;
      const auto* rows_sums =
          reinterpret_cast<const float*>(reinterpret_cast<const std::byte*>(sums) + r * stride);
      Bf16TailTile<kBf16TileRows, kPanels>(
          MinU32(kBf16TileRows, task.rows - r), rows_a, stride, rows_sums, panels, depth,
          c + size_t{r} * task.out_stride, task.out_stride, width, add);
    }
  }
}

inline void Bf16MatMul(const MatMulTask& task) noexcept {
  if (task.call_rows <= kInt16FewRows) return GroupMatMul(task);
  const uint32_t end = task.first_panel + task.panels;
  uint32_t p = task.first_panel;
  for (; p + kBf16TilePanels <= end; p += kBf16TilePanels) Bf16Panels<kBf16TilePanels>(task, p);
  if (p < end) Bf16Panels<1>(task, p);
}

inline uint64_t Bf16MatMulScratchBytes() noexcept {
  return kBf16TilePanels * (kBf16Depth / 2 + kBf16Depth / kQuantBlock * 2) * sizeof(__m512i);
}

}  // namespace
}  // namespace corpusd
