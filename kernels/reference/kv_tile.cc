#include "kernels/reference/kv_tile.h"

#include <cmath>
#include <cstring>

#include "kernels/reference/rope.h"

namespace corpusd {
namespace {

constexpr uint32_t kMaxHeadDim = 256;

// One float32 scale a token follows the codes of an int8 tile.
float* ScaleAt(std::byte* tile, const KvFormat& format, uint32_t token) {
  return reinterpret_cast<float*>(tile + size_t{format.block_tokens} * format.head_dim) + token;
}
float ReadScale(const std::byte* tile, const KvFormat& format, uint32_t token) {
  float scale;
  std::memcpy(&scale, tile + size_t{format.block_tokens} * format.head_dim + size_t{token} * 4, 4);
  return scale;
}

size_t Index(bool is_key, KvCodec codec, const KvFormat& format, uint32_t token, uint32_t dim) {
  return is_key ? KeyIndex(codec, format.block_tokens, token, dim)
                : ValueIndex(codec, format.head_dim, token, dim);
}

void Encode(std::byte* tile, bool is_key, KvCodec codec, const KvFormat& format, uint32_t token,
            const float* values) {
  if (codec == KvCodec::kBf16) {
    auto* target = reinterpret_cast<uint16_t*>(tile);
    for (uint32_t i = 0; i < format.head_dim; ++i) {
      target[Index(is_key, codec, format, token, i)] = Bf16FromFloat(values[i]);
    }
    return;
  }
  float largest = 0;
  for (uint32_t i = 0; i < format.head_dim; ++i) largest = std::fmax(largest, std::fabs(values[i]));
  // A scale below the normal range would make its inverse infinite: such a token is stored as
  // zeros.
  const float scale = largest < 1e-30f ? 0.0f : largest / 127.0f;
  const float inverse = scale == 0 ? 0.0f : 1.0f / scale;
  auto* target = reinterpret_cast<int8_t*>(tile);
  for (uint32_t i = 0; i < format.head_dim; ++i) {
    const float code = std::fmin(127.0f, std::fmax(-127.0f, std::nearbyint(values[i] * inverse)));
    target[Index(is_key, codec, format, token, i)] = static_cast<int8_t>(code);
  }
  *ScaleAt(tile, format, token) = scale;
}

void Decode(float* out, const std::byte* tile, bool is_key, KvCodec codec, const KvFormat& format,
            uint32_t token) {
  for (uint32_t i = 0; i < format.head_dim; ++i) {
    const size_t index = Index(is_key, codec, format, token, i);
    if (codec == KvCodec::kBf16) {
      uint16_t bits;
      std::memcpy(&bits, tile + index * 2, 2);
      out[i] = FloatFromBf16(bits);
    } else {
      out[i] =
          static_cast<float>(static_cast<int8_t>(tile[index])) * ReadScale(tile, format, token);
    }
  }
}

}  // namespace

void WriteKey(std::byte* tile, const KvFormat& format, uint32_t token, const float* key,
              const RopeTable* rope) noexcept {
  if (rope == nullptr) return Encode(tile, true, format.key_codec, format, token, key);
  double turned[kMaxHeadDim];
  float rounded[kMaxHeadDim];
  RotateHead(turned, key, format.head_dim, rope, token);
  for (uint32_t i = 0; i < format.head_dim; ++i) rounded[i] = static_cast<float>(turned[i]);
  Encode(tile, true, format.key_codec, format, token, rounded);
}

void WriteValue(std::byte* tile, const KvFormat& format, uint32_t token,
                const float* value) noexcept {
  Encode(tile, false, format.value_codec, format, token, value);
}

void ReadKey(float* out, const std::byte* tile, const KvFormat& format, uint32_t token) noexcept {
  Decode(out, tile, true, format.key_codec, format, token);
}

void ReadValue(float* out, const std::byte* tile, const KvFormat& format, uint32_t token) noexcept {
  Decode(out, tile, false, format.value_codec, format, token);
}

}  // namespace corpusd
