// kernels/cpu/packed_weight.h -- how a weight matrix lies in memory for the CPU kernels: panels of
// 16 outputs, so that one vector holds the 16 outputs of one input. One layout for every
// instruction set, for prefill and decode; layouts: kernels/README.md. Plain data and pure
// functions; any thread; owns nothing.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/weight_types.h"

namespace corpusd {

inline constexpr uint32_t kPanelOutputs = 16;
inline constexpr uint32_t kQuantBlock = 32;  // inputs that share a scale

enum class PackedKind : uint8_t {
  kQ4,    // unsigned 4-bit codes, float16 scale and minimum per 32 inputs: w = d * q + m
  kQ8,    // int8 codes, float16 scale per 32 inputs: w = d * q
  kBf16,  // bfloat16
  kF32,
};

struct PackedWeight {
  const std::byte* data = nullptr;  // panel p at p * panel_bytes, 64-byte aligned
  uint64_t panel_bytes = 0;
  PackedKind kind = PackedKind::kF32;
  uint32_t rows = 0;  // outputs; the last panel's missing ones are zero
  uint32_t cols = 0;  // inputs

  uint32_t panels() const { return (rows + kPanelOutputs - 1) / kPanelOutputs; }
  const std::byte* panel(uint32_t p) const { return data + p * panel_bytes; }
};

// The kind that keeps every bit of a type in the fewest bytes (of Q4_K all but the last bits of its
// scales); types that no kind fits become kBf16.
PackedKind PackedKindFor(WeightType type) noexcept;
uint64_t PackedPanelBytes(PackedKind kind, uint32_t cols) noexcept;
// Bytes of the scales before the codes of a kQ4 or kQ8 panel.
constexpr uint64_t PackedScaleBytes(PackedKind kind, uint32_t cols) noexcept {
  const uint64_t blocks = cols / kQuantBlock;
  return kind == PackedKind::kQ4 ? blocks * 64 : (blocks * 32 + 63) / 64 * 64;
}

// Writes row `row` of a zeroed weight at `data`. scratch: cols floats. REQUIRES: a type for which
// `kind` is PackedKindFor(type), or kind kBf16 or kF32.
void PackRow(std::byte* data, PackedKind kind, uint32_t row, uint32_t cols, WeightType type,
             const std::byte* source, float* scratch) noexcept;
// out[0:cols] = row `row`, exactly as the kernels see it.
void UnpackRow(float* out, const PackedWeight& weight, uint32_t row) noexcept;

}  // namespace corpusd
