// kernels/cuda/page.h -- the plain data that the CUDA kernels of a transformer are called with:
// matrices, pages of keys and values, and the coordinates of the cq formats, all as device
// addresses. No ownership; C++17, since nvcc reads it; usable without CUDA headers.
#pragma once

#include <cstddef>
#include <cstdint>

struct CUstream_st;  // cudaStream_t

namespace corpusd::cuda {

// Row r at data + r * stride; strides count floats.
struct DeviceMatrix {
  float* data = nullptr;
  uint32_t rows = 0, cols = 0;
  uint32_t stride = 0;
  uint32_t unused = 0;  // no padding: calls are compared byte by byte
};

// cos and sin of delta * frequency: row delta holds half_dim pairs, as RopeTable.
struct DeviceRope {
  const float* cos_sin = nullptr;  // null: nothing turns
  uint32_t half_dim = 0;
  uint32_t unused = 0;
};

// How a tile is coded: the bits of a code for the cq formats.
enum class PageCodec : uint8_t { kCq2 = 2, kCq3 = 3, kCq4 = 4, kCq8 = 8, kBf16 = 16, kInt8 = 17 };

// One page in a layer-independent form: the K tile of layer l and KV head h lies at bytes +
// l * layer_bytes + h * key_tile_bytes, the V tile kv_heads * key_tile_bytes - h * key_tile_bytes +
// h * value_tile_bytes behind it.
struct DevicePage {
  const uint8_t* bytes = nullptr;
  int64_t first_position = 0;
  uint32_t layer_bytes = 0, key_tile_bytes = 0, value_tile_bytes = 0;
  uint16_t tokens = 0, hidden = 0;  // visible slots: [hidden, tokens)
  PageCodec key_codec = PageCodec::kBf16, value_codec = PageCodec::kBf16;
  uint8_t unused[6] = {};  // no padding: pages are compared byte by byte
};

// The arrays of one side (keys, values) of one KV head, float32, one behind the other: forward
// [D, D], inverse [D, D], query [D, D], the transpose of feedback [D, D], mean [D],
// mean_coordinates [D], weight [D], as KvCoordinates has them. A basis is [kv_heads][keys, values].
enum class BasisPart { kForward, kInverse, kQuery, kFeedback, kMean, kMeanCoordinates, kWeight };
constexpr size_t BasisPartOffset(BasisPart part, size_t dim) {
  return static_cast<int>(part) < 4 ? static_cast<size_t>(part) * dim * dim
                                    : 4 * dim * dim + (static_cast<size_t>(part) - 4) * dim;
}
constexpr size_t BasisSideFloats(size_t dim) { return 4 * dim * dim + 3 * dim; }

struct DeviceBasis {
  const float* arrays = nullptr;  // null: pages hold plain keys and values
};

}  // namespace corpusd::cuda
