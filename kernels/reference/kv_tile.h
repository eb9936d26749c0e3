// kernels/reference/kv_tile.h -- how the K and V of one head lie in a tile's bytes: the one encoder
// that every backend on a CPU uses, so the bytes of a block never depend on the instruction set,
// and a scalar decoder for tests and the reference. Layouts: kernels/README.md. Pure functions; any
// thread; writers of one tile must not overlap.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "kernels/kv_format.h"
#include "kernels/shapes.h"

namespace corpusd {

// Round to nearest even; NaN stays NaN.
inline uint16_t Bf16FromFloat(float value) noexcept {
  const auto bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
inline float FloatFromBf16(uint16_t value) noexcept {
  return std::bit_cast<float>(uint32_t{value} << 16);
}

// Element [token, dim] of a K tile (in elements, not bytes).
inline size_t KeyIndex(KvCodec codec, uint32_t block_tokens, uint32_t token,
                       uint32_t dim) noexcept {
  const uint32_t group = codec == KvCodec::kBf16 ? 2 : 4;
  return (size_t{dim / group} * block_tokens + token) * group + dim % group;
}
// Element [token, dim] of a V tile.
inline size_t ValueIndex(KvCodec codec, uint32_t head_dim, uint32_t token, uint32_t dim) noexcept {
  const uint32_t group = codec == KvCodec::kBf16 ? 2 : 4;
  return (size_t{token / group} * head_dim + dim) * group + token % group;
}

// KvCoordinates::query_pairs of a query matrix.
inline void QueryPairs(uint16_t* pairs, const float* query, uint32_t head_dim) noexcept {
  for (size_t i = 0; i < head_dim; ++i) {
    for (size_t j = 0; j < head_dim; ++j) {
      pairs[(i / 2 * head_dim + j) * 2 + i % 2] = Bf16FromFloat(query[i * head_dim + j]);
    }
  }
}

// Encodes one head of one token into slot `token` of a tile; key is rotated by the slot unless rope
// is null.
void WriteKey(std::byte* tile, const KvFormat& format, uint32_t token, const float* key,
              const RopeTable* rope) noexcept;
void WriteValue(std::byte* tile, const KvFormat& format, uint32_t token,
                const float* value) noexcept;

// out[0:head_dim] of one slot, as stored (keys stay rotated).
void ReadKey(float* out, const std::byte* tile, const KvFormat& format, uint32_t token) noexcept;
void ReadValue(float* out, const std::byte* tile, const KvFormat& format, uint32_t token) noexcept;

}  // namespace corpusd
