// kernels/cpu/isa/amx_tiles.h -- matrix product by AMX bf16 tiles of 16 x 16 outputs and 32 inputs.
// Weights are dequantized in float32 and rounded to bf16; tiles run over the inputs in ascending
// order, and a tile's rows never mix, so an output's bits do not depend on the cut. Products of few
// rows, as a decode makes, would spend their time on rounding weights: amx_groups.h has them.
// Included after bf16_attention.h by one translation unit.
#pragma once

namespace corpusd {
namespace {

constexpr uint32_t kTileSide = 16;
constexpr uint32_t kTileDepth = 32;
// Weights are expanded in slices of this depth, two panels at a time: 128 KiB of L2.
constexpr uint32_t kAmxDepth = 2048;

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Whole tiles; and, for groups of 32 inputs in bytes: sums in tiles 0 to 3, rows in 4 and 5, codes
// in 6 and 7. Constant data, as no other would do: g++ 12's _tile_loadconfig names 8 of the 64
// bytes that it reads, so stores to the others are dropped and every tile would have no rows.
constexpr TileConfig kWholeTiles = {};
constexpr TileConfig kByteTiles = {.row_bytes = {64, 64, 64, 64, 32, 32, 64, 64},
                                   .rows = {16, 16, 16, 16, 16, 16, 8, 8}};

// The tile registers of this thread, set up for as long as the object lives.
template <const TileConfig& kConfig = kWholeTiles>
class TileScope {
 public:
  TileScope() { _tile_loadconfig(&kConfig); }
  ~TileScope() { _tile_release(); }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;
};

// Strides in bytes. b0, b1: [depth / 2][16][2] of two groups of 16 columns; b1 null: one group.
struct TileFactors {
  const std::byte* a;
  size_t a_stride;
  const std::byte* b0;
  const std::byte* b1;
  size_t b_stride;
  uint32_t depth;
};

inline void BeginTiles() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}
// Tiles 0 .. 3 += a * b, 32 rows.
inline void AddTiles(const TileFactors& f) {
  for (uint32_t k = 0; k < f.depth; k += kTileDepth) {
    const std::byte* a = f.a + size_t{k} * 2;
    _tile_loadd(4, a, f.a_stride);
    _tile_loadd(5, a + kTileSide * f.a_stride, f.a_stride);
    _tile_loadd(6, f.b0 + k / 2 * f.b_stride, f.b_stride);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(2, 5, 6);
    if (f.b1 != nullptr) {
      _tile_loadd(7, f.b1 + k / 2 * f.b_stride, f.b_stride);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
}
inline void EndTiles(float* c, size_t c_stride) {
  float* lower = c + kTileSide * c_stride;
  _tile_stored(0, c, c_stride * 4);
  _tile_stored(2, lower, c_stride * 4);
  _tile_stored(1, c + kTileSide, c_stride * 4);
  _tile_stored(3, lower + kTileSide, c_stride * 4);
}

// c[32][16 or 32] (+)= a * b, c row-major with c_stride floats.
inline void FullTiles(const TileFactors& f, float* c, size_t c_stride, bool add) {
  float* lower = c + kTileSide * c_stride;
  const size_t c_bytes = c_stride * 4;
  BeginTiles();
  if (add) {
    _tile_loadd(0, c, c_bytes);
    _tile_loadd(2, lower, c_bytes);
    if (f.b1 != nullptr) {
      _tile_loadd(1, c + kTileSide, c_bytes);
      _tile_loadd(3, lower + kTileSide, c_bytes);
    }
  }
  AddTiles(f);
  if (f.b1 != nullptr) return EndTiles(c, c_stride);
  _tile_stored(0, c, c_bytes);
  _tile_stored(2, lower, c_bytes);
}

// The same for the upper 16 rows only.
inline void HalfTiles(const TileFactors& f, float* c, size_t c_stride, bool add) {
  const size_t c_bytes = c_stride * 4;
  _tile_zero(0);
  _tile_zero(1);
  if (add) {
    _tile_loadd(0, c, c_bytes);
    if (f.b1 != nullptr) _tile_loadd(1, c + kTileSide, c_bytes);
  }
  for (uint32_t k = 0; k < f.depth; k += kTileDepth) {
    _tile_loadd(4, f.a + size_t{k} * 2, f.a_stride);
    _tile_loadd(6, f.b0 + k / 2 * f.b_stride, f.b_stride);
    _tile_dpbf16ps(0, 4, 6);
    if (f.b1 != nullptr) {
      _tile_loadd(7, f.b1 + k / 2 * f.b_stride, f.b_stride);
      _tile_dpbf16ps(1, 4, 7);
    }
  }
  _tile_stored(0, c, c_bytes);
  if (f.b1 != nullptr) _tile_stored(1, c + kTileSide, c_bytes);
}

// rows <= 32 and width <= 32 outputs, the rest of the tiles being nobody's: through a copy.
void EdgeTiles(const TileFactors& f, uint32_t rows, uint32_t width, float* c, size_t c_stride,
               bool add) {
  alignas(64) float copy[2 * kTileSide * 2 * kTileSide];
  constexpr size_t kStride = 2 * kTileSide;
  for (uint32_t r = 0; r < rows && add; ++r) {
    for (uint32_t i = 0; i < width; i += kLanes) {
      Store(copy + r * kStride + i, LoadFirst(c + r * c_stride + i, width - i));
    }
  }
  if (rows > kTileSide) {
    FullTiles(f, copy, kStride, add);
  } else {
    HalfTiles(f, copy, kStride, add);
  }
  for (uint32_t r = 0; r < rows; ++r) {
    for (uint32_t i = 0; i < width; i += kLanes) {
      StoreFirst(c + r * c_stride + i, Load(copy + r * kStride + i), width - i);
    }
  }
}

// Any number of rows times one or two groups of columns, `width` of them wanted. room: rows that c
// has and that may be overwritten with anything; at least `rows`.
inline void TileGemm(TileFactors f, uint32_t rows, uint32_t width, float* c, size_t c_stride,
                     bool add, uint32_t room) {
  const bool whole = width % kTileSide == 0;
  for (uint32_t r = 0; r < rows; r += 2 * kTileSide) {
    const uint32_t count = MinU32(2 * kTileSide, rows - r);
    const uint32_t here = count <= kTileSide ? kTileSide : 2 * kTileSide;
    if (whole && here == 2 * kTileSide && r + here <= room) {
      FullTiles(f, c, c_stride, add);
    } else if (whole && here == kTileSide && r + here <= room) {
      HalfTiles(f, c, c_stride, add);
    } else {
      EdgeTiles(f, count, width, c, c_stride, add);
    }
    f.a += 2 * kTileSide * f.a_stride;
    c += 2 * kTileSide * c_stride;
  }
}

// out[depth / 2][16][2]: a panel's inputs [first, first + depth) in bf16, zeros past the last
// input.
inline void ExpandRounded(const PackedWeight& weight, uint32_t panel, uint32_t first,
                          uint32_t depth, __m512i* out) {
  const uint32_t count = MinU32(depth, weight.cols - first);
  Lanes even = Zero();
  ForEachWeight(weight, panel, first, count, [&](uint32_t k, Lanes w) {
    if (k % 2 == 0) {
      even = w;
    } else {
      _mm512_store_si512(out + (k - first) / 2, PairsOf(even, w));
    }
  });
  if (count % 2 == 1) _mm512_store_si512(out + count / 2, PairsOf(even, Zero()));
  for (uint32_t i = (count + 1) / 2; i < depth / 2; ++i) {
    _mm512_store_si512(out + i, _mm512_setzero_si512());
  }
}

// More than kFewRows.
void ManyRowsMatMul(const MatMulTask& task) {
  const TileScope<> tiles;
  const PackedWeight& weight = task.weight;
  const uint32_t padded = PaddedCols(weight.cols);
  const size_t stride = PreparedStride(weight.cols);
  auto* expanded = reinterpret_cast<__m512i*>(task.scratch);
  const uint32_t end = task.first_panel + task.panels;
  for (uint32_t p = task.first_panel; p < end; p += 2) {
    const uint32_t panels = MinU32(2, end - p);
    const uint32_t width = MinU32(panels * kLanes, weight.rows - p * kLanes);
    for (uint32_t first = 0; first < padded; first += kAmxDepth) {
      const uint32_t depth = MinU32(kAmxDepth, padded - first);
      for (uint32_t i = 0; i < panels; ++i) {
        ExpandRounded(weight, p + i, first, depth, expanded + i * (kAmxDepth / 2));
      }
      const auto* b0 = reinterpret_cast<const std::byte*>(expanded);
      const TileFactors factors{.a = task.prepared + task.first_row * stride + size_t{first} * 2,
                                .a_stride = stride,
                                .b0 = b0,
                                .b1 = panels == 2 ? b0 + kAmxDepth / 2 * 64 : nullptr,
                                .b_stride = 64,
                                .depth = depth};
      TileGemm(factors, task.rows, width,
               task.out + size_t{task.first_row} * task.out_stride + size_t{p} * kLanes,
               task.out_stride, task.accumulate || first > 0, task.rows);
    }
  }
}

uint64_t AmxMatMulScratchBytes() noexcept {
  const uint64_t bytes = uint64_t{kAmxDepth} * 64;
  return bytes > kFloatScratchBytes ? bytes : kFloatScratchBytes;
}

}  // namespace
}  // namespace corpusd
