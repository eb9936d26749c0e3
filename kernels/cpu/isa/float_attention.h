// kernels/cpu/isa/float_attention.h -- the attention Policy in float32: tiles are expanded once per
// page and task into panels [depth][16] and multiplied by FMA. Included after float_matmul.h and
// attention_body.h.
#pragma once

namespace corpusd {
namespace {

// out[cols / 16][depth][16] = the first cols columns of a tile [depth / g][tile_cols][g].
inline void ExpandTile(float* out, KvCodec codec, const std::byte* tile, uint32_t tile_cols,
                       uint32_t cols, uint32_t depth) {
  const uint32_t pack = codec == KvCodec::kBf16 ? 2 : 4;
  for (uint32_t c = 0; c < cols; c += kLanes) {
    for (uint32_t k = 0; k < depth; k += pack) {
      const IntLanes v = LoadInt(tile + (size_t{k / pack} * tile_cols + c) * 4);
      if (codec == KvCodec::kBf16) {
        Store(out, LowBf16ToFloat(v));
        Store(out + kLanes, HighBf16ToFloat(v));
      } else {
        Store(out, ByteToFloat<0>(v));
        Store(out + kLanes, ByteToFloat<1>(v));
        Store(out + 2 * kLanes, ByteToFloat<2>(v));
        Store(out + 3 * kLanes, ByteToFloat<3>(v));
      }
      out += pack * kLanes;
    }
  }
}

// Up to this many stacked rows (a decode) take each factor from the tile as it is expanded.
constexpr uint32_t kFusedRows = 4;

// c[kRows][cols] (+)= a[kRows][depth] * tile, without the panel; the same FMAs in the same order.
// With every 64 bytes of the tile it asks for 64 of the tile that is needed next: a decode waits
// for memory, and a tile is not read in the order of its addresses, so the processor does not
// foresee it.
template <uint32_t kRows>
inline void FusedMultiply(const float* a, size_t a_stride, KvCodec codec, const std::byte* tile,
                          uint32_t tile_cols, uint32_t cols, uint32_t depth, float* c,
                          size_t c_stride, bool add, const std::byte* ahead) {
  for (uint32_t i = 0; i < cols; i += kLanes) {
    Lanes sums[kRows];
#pragma GCC unroll 4
    for (uint32_t r = 0; r < kRows; ++r) sums[r] = add ? Load(c + r * c_stride + i) : Zero();
    const auto step = [&](uint32_t k, Lanes w) {
#pragma GCC unroll 4
      for (uint32_t r = 0; r < kRows; ++r) {
        sums[r] = Fma(BroadcastFrom(a + r * a_stride + k), w, sums[r]);
      }
    };
    if (codec == KvCodec::kBf16) {
      for (uint32_t k = 0; k < depth; k += 2) {
        const IntLanes v = LoadInt(tile + (size_t{k / 2} * tile_cols + i) * 4);
        __builtin_prefetch(ahead);
        ahead += 64;
        step(k, LowBf16ToFloat(v));
        step(k + 1, HighBf16ToFloat(v));
      }
    } else {
      for (uint32_t k = 0; k < depth; k += 4) {
        const IntLanes v = LoadInt(tile + (size_t{k / 4} * tile_cols + i) * 4);
        __builtin_prefetch(ahead);
        ahead += 64;
        step(k, ByteToFloat<0>(v));
        step(k + 1, ByteToFloat<1>(v));
        step(k + 2, ByteToFloat<2>(v));
        step(k + 3, ByteToFloat<3>(v));
      }
    }
#pragma GCC unroll 4
    for (uint32_t r = 0; r < kRows; ++r) Store(c + r * c_stride + i, sums[r]);
  }
}

template <uint32_t kRows>
inline void FusedTail(uint32_t rows, const float* a, size_t a_stride, KvCodec codec,
                      const std::byte* tile, uint32_t tile_cols, uint32_t cols, uint32_t depth,
                      float* c, size_t c_stride, bool add, const std::byte* ahead) {
  if constexpr (kRows > 0) {
    if (rows == kRows) {
      return FusedMultiply<kRows>(a, a_stride, codec, tile, tile_cols, cols, depth, c, c_stride,
                                  add, ahead);
    }
    FusedTail<kRows - 1>(rows, a, a_stride, codec, tile, tile_cols, cols, depth, c, c_stride, add,
                         ahead);
  }
}

struct FloatPolicy : FloatMapping {
  using Element = float;
  using Expansion = FloatExpansion;
  static constexpr uint32_t kTokenMultiple = kLanes;
  static constexpr bool kFetchesAhead = true;
  static void BeginExpanded(const AttentionTask& task, const AttentionWork<float>& work) {
    RotateRows<FloatPolicy>(task, task.frame, FirstInFrame(task), task.rows, work.queries);
  }
  static void Attend(const AttentionTask& task, const PageTiles& page, const PageTiles* next,
                     const AttentionWork<float>& work, SoftmaxState state) {
    AttendPage<FloatPolicy>(task, page, next, work, state);
  }
  static void StoreElements(float* p, Lanes v) { Store(p, v); }
  static void Multiply(uint32_t rows, const float* a, size_t a_stride, KvCodec codec,
                       const std::byte* tile, uint32_t tile_cols, uint32_t cols, uint32_t depth,
                       std::byte* expanded, float* c, size_t c_stride, bool add,
                       const std::byte* ahead, uint32_t /*room*/) {
    if (rows <= kFusedRows) {
      return FusedTail<kFusedRows>(rows, a, a_stride, codec, tile, tile_cols, cols, depth, c,
                                   c_stride, add, ahead);
    }
    auto* panels = reinterpret_cast<float*>(expanded);
    ExpandTile(panels, codec, tile, tile_cols, cols, depth);
    for (uint32_t i = 0; i < cols; i += kLanes) {
      FloatGemm(rows, a, a_stride, panels + size_t{i} * depth, depth, c + i, c_stride, add);
    }
  }
};

}  // namespace
}  // namespace corpusd
