// kernels/cpu/isa/bf16_attention.h -- the attention Policy by bf16 dot products: bf16 tiles are
// multiplied where they lie (their layout is the instruction's), int8 tiles are expanded to bf16,
// which holds their codes exactly. Queries and softmax weights are rounded to bf16. Included after
// bf16_rows.h and attention_body.h by one translation unit.
#pragma once

namespace corpusd {
namespace {

constexpr uint32_t kBf16AttentionRows = 12;

// out[depth / 2][cols][2] as bf16 = the first cols columns of an int8 tile [depth /
// 4][tile_cols][4].
inline void ExpandInt8Tile(std::byte* out, const std::byte* tile, uint32_t tile_cols, uint32_t cols,
                           uint32_t depth) {
  for (uint32_t k = 0; k < depth; k += 4) {
    for (uint32_t c = 0; c < cols; c += kLanes) {
      const IntLanes v = LoadInt(tile + (size_t{k / 4} * tile_cols + c) * 4);
      std::byte* target = out + (size_t{k / 2} * cols + c) * 4;
      _mm512_storeu_si512(target, ExactPairsOf(ByteToFloat<0>(v), ByteToFloat<1>(v)));
      _mm512_storeu_si512(target + size_t{cols} * 4,
                          ExactPairsOf(ByteToFloat<2>(v), ByteToFloat<3>(v)));
    }
  }
}

// c[kRows][16 * kGroups] (+)= a[kRows][depth] * b[depth / 2][b_cols][2]
template <uint32_t kRows, uint32_t kGroups>
inline void PairTile(const uint16_t* a, size_t a_stride, const std::byte* b, size_t b_cols,
                     uint32_t depth, float* c, size_t c_stride, bool add) {
  Lanes sums[kRows][kGroups];
#pragma GCC unroll 16
  for (uint32_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (uint32_t g = 0; g < kGroups; ++g) {
      sums[r][g] = add ? Load(c + r * c_stride + g * kLanes) : Zero();
    }
  }
  for (uint32_t k = 0; k < depth; k += 2) {
    __m512i w[kGroups];
#pragma GCC unroll 2
    for (uint32_t g = 0; g < kGroups; ++g) w[g] = LoadInt(b + (k / 2 * b_cols + g * kLanes) * 4).v;
#pragma GCC unroll 16
    for (uint32_t r = 0; r < kRows; ++r) {
      const __m512i pair = BroadcastBf16Pair(a + r * a_stride + k);
#pragma GCC unroll 2
      for (uint32_t g = 0; g < kGroups; ++g) sums[r][g] = Dot(sums[r][g], pair, w[g]);
    }
  }
#pragma GCC unroll 16
  for (uint32_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (uint32_t g = 0; g < kGroups; ++g) Store(c + r * c_stride + g * kLanes, sums[r][g]);
  }
}

template <uint32_t kRows, uint32_t kGroups>
inline void PairTailTile(uint32_t rows, const uint16_t* a, size_t a_stride, const std::byte* b,
                         size_t b_cols, uint32_t depth, float* c, size_t c_stride, bool add) {
  if constexpr (kRows > 0) {
    if (rows == kRows) {
      return PairTile<kRows, kGroups>(a, a_stride, b, b_cols, depth, c, c_stride, add);
    }
    PairTailTile<kRows - 1, kGroups>(rows, a, a_stride, b, b_cols, depth, c, c_stride, add);
  }
}

struct Bf16Policy : FloatMapping {
  using Element = uint16_t;
  static constexpr uint32_t kTokenMultiple = kLanes;
  static constexpr bool kFetchesAhead = false;
  static void Attend(const AttentionTask& task, const PageTiles& page, const PageTiles* next,
                     const AttentionWork<uint16_t>& work, SoftmaxState state) {
    AttendPage<Bf16Policy>(task, page, next, work, state);
  }
  static void StoreElements(uint16_t* p, Lanes v) { StoreBf16(p, v); }

  static void Multiply(uint32_t rows, const uint16_t* a, size_t a_stride, KvCodec codec,
                       const std::byte* tile, uint32_t tile_cols, uint32_t cols, uint32_t depth,
                       std::byte* expanded, float* c, size_t c_stride, bool add,
                       const std::byte* /*ahead*/, uint32_t /*room*/) {
    const std::byte* b = tile;
    size_t b_cols = tile_cols;
    if (codec == KvCodec::kInt8) {
      ExpandInt8Tile(expanded, tile, tile_cols, cols, depth);
      b = expanded;
      b_cols = cols;
    }
    for (uint32_t i = 0; i < cols; i += 2 * kLanes) {
      for (uint32_t r = 0; r < rows; r += kBf16AttentionRows) {
        const uint32_t count = MinU32(kBf16AttentionRows, rows - r);
        const uint16_t* row = a + r * a_stride;
        float* target = c + r * c_stride + i;
        if (i + 2 * kLanes <= cols) {
          PairTailTile<kBf16AttentionRows, 2>(count, row, a_stride, b + size_t{i} * 4, b_cols,
                                              depth, target, c_stride, add);
        } else {
          PairTailTile<kBf16AttentionRows, 1>(count, row, a_stride, b + size_t{i} * 4, b_cols,
                                              depth, target, c_stride, add);
        }
      }
    }
  }
};

}  // namespace
}  // namespace corpusd
