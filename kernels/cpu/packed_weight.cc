#include "kernels/cpu/packed_weight.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/reference/dequantize.h"
#include "kernels/reference/kv_tile.h"
#include "kernels/reference/quantize.h"

namespace corpusd {
namespace {

uint16_t LoadU16(const std::byte* p) {
  uint16_t value;
  std::memcpy(&value, p, 2);
  return value;
}
void StoreU16(std::byte* p, uint16_t value) { std::memcpy(p, &value, 2); }

// -8 times a float16, exact but for overflow to infinity: the exponent grows by three.
uint16_t HalfTimesMinusEight(uint16_t half) {
  uint32_t magnitude = half & 0x7fffu;
  for (int doubling = 0; doubling < 3 && magnitude < 0x7c00u; ++doubling) {
    magnitude = magnitude < 0x400u ? magnitude * 2 : magnitude + 0x400u;
  }
  return static_cast<uint16_t>(((half ^ 0x8000u) & 0x8000u) | magnitude);
}

// Place of a 4-bit code in a kQ4 panel: inputs 8c + 2n + h of an output share 32 bits, at bit 16h +
// 4n.
struct NibblePlace {
  size_t byte;
  uint32_t shift;
};
NibblePlace PlaceOfQ4(uint32_t lane, uint32_t k) {
  const uint32_t bit = 16 * (k & 1) + 4 * (k % 8 / 2);
  return {size_t{k / 8} * 64 + lane * 4 + bit / 8, bit % 8};
}
size_t PlaceOfQ8(uint32_t lane, uint32_t k) { return size_t{k / 4} * 64 + lane * 4 + k % 4; }

// Super-blocks of 256: d, d_min, eight scales and minima, then per 64 inputs the low nibbles of 32
// bytes and the high ones. The products d * scale and d_min * min are rounded to float16: 2^-12 of
// a weight, an eighth of what bfloat16 would do to it.
void PackQ4K(std::byte* panel, uint32_t lane, uint32_t cols, const std::byte* source) {
  constexpr uint32_t kGroups = 8, kHeaderBytes = 16, kBytes = 144;
  std::byte* codes = panel + PackedScaleBytes(PackedKind::kQ4, cols);
  for (uint32_t block = 0; block < cols / kQuantBlock; ++block) {
    const std::byte* super = source + size_t{block / kGroups} * kBytes;
    const uint32_t group = block % kGroups;
    const ScaleAndMin s = UnpackScaleAndMin(super + 4, group);
    const float d = HalfToFloat(LoadU16(super)) * static_cast<float>(s.scale);
    const float minimum = HalfToFloat(LoadU16(super + 2)) * static_cast<float>(s.min);
    StoreU16(panel + block * 64 + lane * 2, HalfFromFloat(d));
    StoreU16(panel + block * 64 + 32 + lane * 2, HalfFromFloat(-minimum));
    const std::byte* nibbles = super + kHeaderBytes + group / 2 * 32;
    for (uint32_t i = 0; i < kQuantBlock; ++i) {
      const auto pair = std::to_integer<uint32_t>(nibbles[i]);
      const uint32_t code = group % 2 == 0 ? pair & 15u : pair >> 4;
      const NibblePlace place = PlaceOfQ4(lane, block * kQuantBlock + i);
      codes[place.byte] |= static_cast<std::byte>(code << place.shift);
    }
  }
}

void PackQ4(std::byte* panel, uint32_t lane, uint32_t cols, WeightType type,
            const std::byte* source) {
  if (type == WeightType::kQ4_K) return PackQ4K(panel, lane, cols, source);
  std::byte* codes = panel + PackedScaleBytes(PackedKind::kQ4, cols);
  const uint32_t header_bytes = type == WeightType::kQ4_1 ? 4 : 2;
  for (uint32_t block = 0; block < cols / kQuantBlock; ++block) {
    const uint16_t scale = LoadU16(source);
    StoreU16(panel + block * 64 + lane * 2, scale);
    StoreU16(panel + block * 64 + 32 + lane * 2,
             type == WeightType::kQ4_1 ? LoadU16(source + 2) : HalfTimesMinusEight(scale));
    const std::byte* nibbles = source + header_bytes;
    for (uint32_t i = 0; i < kQuantBlock; ++i) {
      const auto pair = std::to_integer<uint32_t>(nibbles[i % 16]);
      const uint32_t code = i < 16 ? pair & 15u : pair >> 4;
      const NibblePlace place = PlaceOfQ4(lane, block * kQuantBlock + i);
      codes[place.byte] |= static_cast<std::byte>(code << place.shift);
    }
    source += header_bytes + 16;
  }
}

void PackQ8(std::byte* panel, uint32_t lane, uint32_t cols, WeightType type,
            const std::byte* source) {
  std::byte* codes = panel + PackedScaleBytes(PackedKind::kQ8, cols);
  for (uint32_t block = 0; block < cols / kQuantBlock; ++block) {
    StoreU16(panel + block * 32 + lane * 2, LoadU16(source));
    for (uint32_t i = 0; i < kQuantBlock; ++i) {
      std::byte code;
      if (type == WeightType::kQ8_0) {
        code = source[2 + i];
      } else {  // kQ5_0: scale, 32 fifth bits, 32 nibbles
        uint32_t fifth_bits;
        std::memcpy(&fifth_bits, source + 2, 4);
        const auto pair = std::to_integer<uint32_t>(source[6 + i % 16]);
        const uint32_t low = i < 16 ? pair & 15u : pair >> 4;
        const uint32_t value = low | ((fifth_bits >> i & 1u) << 4);
        code = static_cast<std::byte>(static_cast<uint8_t>(value - 16u));
      }
      codes[PlaceOfQ8(lane, block * kQuantBlock + i)] = code;
    }
    source += type == WeightType::kQ8_0 ? 34 : 22;
  }
}

}  // namespace

PackedKind PackedKindFor(WeightType type) noexcept {
  switch (type) {
    case WeightType::kQ4_0:
    case WeightType::kQ4_1:
    case WeightType::kQ4_K:
      return PackedKind::kQ4;
    case WeightType::kQ8_0:
    case WeightType::kQ5_0:
      return PackedKind::kQ8;
    case WeightType::kF32:
    case WeightType::kF16:
      return PackedKind::kF32;
    default:
      return PackedKind::kBf16;
  }
}

uint64_t PackedPanelBytes(PackedKind kind, uint32_t cols) noexcept {
  const uint64_t padded = (uint64_t{cols} + kQuantBlock - 1) / kQuantBlock * kQuantBlock;
  switch (kind) {
    case PackedKind::kQ4:
      return PackedScaleBytes(kind, cols) + padded * kPanelOutputs / 2;
    case PackedKind::kQ8:
      return PackedScaleBytes(kind, cols) + padded * kPanelOutputs;
    case PackedKind::kBf16:
      return padded * kPanelOutputs * 2;
    case PackedKind::kF32:
      return padded * kPanelOutputs * 4;
  }
  return 0;
}

void PackRow(std::byte* data, PackedKind kind, uint32_t row, uint32_t cols, WeightType type,
             const std::byte* source, float* scratch) noexcept {
  std::byte* panel = data + row / kPanelOutputs * PackedPanelBytes(kind, cols);
  const uint32_t lane = row % kPanelOutputs;
  if (kind == PackedKind::kQ4) return PackQ4(panel, lane, cols, type, source);
  if (kind == PackedKind::kQ8) return PackQ8(panel, lane, cols, type, source);
  DequantizeRow(type, source, scratch, cols);
  for (uint32_t k = 0; k < cols; ++k) {
    if (kind == PackedKind::kF32) {
      std::memcpy(panel + (size_t{k} * kPanelOutputs + lane) * 4, &scratch[k], 4);
    } else {
      StoreU16(panel + (size_t{k / 2} * kPanelOutputs + lane) * 4 + k % 2 * 2,
               Bf16FromFloat(scratch[k]));
    }
  }
}

void UnpackRow(float* out, const PackedWeight& weight, uint32_t row) noexcept {
  const std::byte* panel = weight.panel(row / kPanelOutputs);
  const uint32_t lane = row % kPanelOutputs;
  const std::byte* codes = panel + PackedScaleBytes(weight.kind, weight.cols);
  for (uint32_t k = 0; k < weight.cols; ++k) {
    const uint32_t block = k / kQuantBlock;
    switch (weight.kind) {
      case PackedKind::kQ4: {
        const NibblePlace place = PlaceOfQ4(lane, k);
        const uint32_t code = std::to_integer<uint32_t>(codes[place.byte]) >> place.shift & 15u;
        const double scale = HalfToFloat(LoadU16(panel + block * 64 + lane * 2));
        const double minimum = HalfToFloat(LoadU16(panel + block * 64 + 32 + lane * 2));
        out[k] = static_cast<float>(scale * code + minimum);
        break;
      }
      case PackedKind::kQ8:
        out[k] = HalfToFloat(LoadU16(panel + block * 32 + lane * 2)) *
                 static_cast<float>(static_cast<int8_t>(codes[PlaceOfQ8(lane, k)]));
        break;
      case PackedKind::kBf16:
        out[k] =
            FloatFromBf16(LoadU16(panel + (size_t{k / 2} * kPanelOutputs + lane) * 4 + k % 2 * 2));
        break;
      case PackedKind::kF32:
        std::memcpy(&out[k], panel + (size_t{k} * kPanelOutputs + lane) * 4, 4);
        break;
    }
  }
}

}  // namespace corpusd
