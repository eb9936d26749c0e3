// kernels/cpu/isa/float_attention.h -- the attention Policy in float32: tiles are expanded once per page and
// task into panels [depth][16] and multiplied by FMA. Included after float_matmul.h and attention_body.h.
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

struct FloatPolicy {
  using Element = float;
  static constexpr uint32_t kTokenMultiple = kLanes;
  static void StoreElements(float* p, Lanes v) { Store(p, v); }
  static void Multiply(uint32_t rows, const float* a, size_t a_stride, KvCodec codec,
                       const std::byte* tile, uint32_t tile_cols, uint32_t cols, uint32_t depth,
                       std::byte* expanded, float* c, size_t c_stride, bool add) {
    auto* panels = reinterpret_cast<float*>(expanded);
    ExpandTile(panels, codec, tile, tile_cols, cols, depth);
    for (uint32_t i = 0; i < cols; i += kLanes) {
      FloatGemm(rows, a, a_stride, panels + size_t{i} * depth, depth, c + i, c_stride, add);
    }
  }
};

}  // namespace
}  // namespace corpusd
