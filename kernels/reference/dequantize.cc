// The block layouts are those of ggml: https://github.com/ggml-org/ggml, file format "GGUF". Every
// block is a packed little-endian record; d and m are its scale and offset as binary16.
#include "kernels/reference/dequantize.h"

#include <bit>
#include <cstring>

namespace corpusd {
namespace {

static_assert(std::endian::native == std::endian::little, "model files are little-endian");

constexpr uint32_t kSmallBlock = 32;
constexpr uint32_t kSuperBlock = 256;

uint8_t At(const std::byte* bytes, uint32_t index) { return static_cast<uint8_t>(bytes[index]); }

float HalfAt(const std::byte* bytes) {
  uint16_t half = 0;
  std::memcpy(&half, bytes, sizeof half);
  return HalfToFloat(half);
}

// The nibbles of a 32-element block: element j in the low half of byte j, j + 16 in its high half.
void UnpackNibbles(const std::byte* packed, int values[kSmallBlock]) {
  for (uint32_t j = 0; j < kSmallBlock / 2; ++j) {
    values[j] = At(packed, j) & 0x0f;
    values[j + kSmallBlock / 2] = At(packed, j) >> 4;
  }
}

// Adds the fifth bits: bit j of the word belongs to element j.
void AddFifthBits(const std::byte* bits, int values[kSmallBlock]) {
  uint32_t word = 0;
  std::memcpy(&word, bits, sizeof word);
  for (uint32_t j = 0; j < kSmallBlock; ++j) values[j] += static_cast<int>((word >> j) & 1) << 4;
}

void Scale(const int values[kSmallBlock], float scale, int zero, float offset, float* out) {
  for (uint32_t j = 0; j < kSmallBlock; ++j) {
    out[j] = static_cast<float>(values[j] - zero) * scale + offset;
  }
}

// Q4_K (high_bits null) and Q5_K: per 64 elements the low nibbles of 32 bytes, then the high ones.
void DequantizeSuperBlock45(const std::byte* block, const std::byte* high_bits,
                            const std::byte* nibbles, float* out) {
  const float d = HalfAt(block);
  const float d_min = HalfAt(block + 2);
  for (uint32_t group = 0; group < kSuperBlock / 32; ++group) {
    const ScaleAndMin s = UnpackScaleAndMin(block + 4, group);
    const float scale = d * static_cast<float>(s.scale);
    const float offset = d_min * static_cast<float>(s.min);
    const std::byte* const packed = nibbles + group / 2 * 32;
    for (uint32_t j = 0; j < 32; ++j) {
      int value = group % 2 == 0 ? At(packed, j) & 15 : At(packed, j) >> 4;
      if (high_bits != nullptr) value += ((At(high_bits, j) >> group) & 1) << 4;
      out[group * 32 + j] = scale * static_cast<float>(value) - offset;
    }
  }
}

// Q6_K: 128 low-nibble bytes, 64 bytes of upper bit pairs, 16 signed scales, d.
void DequantizeSuperBlock6(const std::byte* block, float* out) {
  const std::byte* const scales = block + 192;
  const float d = HalfAt(block + 208);
  for (uint32_t half = 0; half < 2; ++half) {
    for (uint32_t quarter = 0; quarter < 4; ++quarter) {
      for (uint32_t j = 0; j < 32; ++j) {
        const int low_byte = At(block, half * 64 + quarter % 2 * 32 + j);
        const int low = quarter < 2 ? low_byte & 15 : low_byte >> 4;
        const int high = (At(block, 128 + half * 32 + j) >> (2 * quarter)) & 3;
        const auto scale = static_cast<int8_t>(At(scales, half * 8 + quarter * 2 + j / 16));
        out[half * 128 + quarter * 32 + j] =
            d * static_cast<float>(scale) * static_cast<float>((low | high << 4) - 32);
      }
    }
  }
}

void DequantizeBlock(WeightType type, const std::byte* block, float* out) {
  int values[kSmallBlock];
  switch (type) {
    case WeightType::kF32:
      std::memcpy(out, block, sizeof(float));
      return;
    case WeightType::kF16:
      *out = HalfAt(block);
      return;
    case WeightType::kBf16: {
      uint16_t upper = 0;
      std::memcpy(&upper, block, sizeof upper);
      *out = std::bit_cast<float>(uint32_t{upper} << 16);
      return;
    }
    case WeightType::kQ4_0:
      UnpackNibbles(block + 2, values);
      return Scale(values, HalfAt(block), 8, 0, out);
    case WeightType::kQ4_1:
      UnpackNibbles(block + 4, values);
      return Scale(values, HalfAt(block), 0, HalfAt(block + 2), out);
    case WeightType::kQ5_0:
      UnpackNibbles(block + 6, values);
      AddFifthBits(block + 2, values);
      return Scale(values, HalfAt(block), 16, 0, out);
    case WeightType::kQ5_1:
      UnpackNibbles(block + 8, values);
      AddFifthBits(block + 4, values);
      return Scale(values, HalfAt(block), 0, HalfAt(block + 2), out);
    case WeightType::kQ8_0:
      for (uint32_t j = 0; j < kSmallBlock; ++j) {
        values[j] = static_cast<int8_t>(At(block, 2 + j));
      }
      return Scale(values, HalfAt(block), 0, 0, out);
    case WeightType::kQ4_K:
      return DequantizeSuperBlock45(block, nullptr, block + 16, out);
    case WeightType::kQ5_K:
      return DequantizeSuperBlock45(block, block + 16, block + 48, out);
    case WeightType::kQ6_K:
      return DequantizeSuperBlock6(block, out);
  }
}

}  // namespace

ScaleAndMin UnpackScaleAndMin(const std::byte* packed, uint32_t index) noexcept {
  if (index < 4) return {At(packed, index) & 63, At(packed, index + 4) & 63};
  const int low = At(packed, index + 4);
  return {(low & 15) | (At(packed, index - 4) >> 6) << 4, (low >> 4) | (At(packed, index) >> 6)
                                                                           << 4};
}

float HalfToFloat(uint16_t half) noexcept {
  const uint32_t sign = uint32_t{half} >> 15 << 31;
  const uint32_t exponent = (half >> 10) & 31;
  const uint32_t mantissa = half & 1023;
  if (exponent == 0) {
    // Subnormal: mantissa * 2^-24, which float32 holds exactly.
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24F;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude) | sign);
  }
  const uint32_t wide_exponent = exponent == 31 ? 255 : exponent + 112;
  return std::bit_cast<float>(sign | wide_exponent << 23 | mantissa << 13);
}

void DequantizeRow(WeightType type, const std::byte* row, float* out, uint32_t cols) noexcept {
  const WeightTypeInfo& info = *FindWeightType(static_cast<uint32_t>(type));
  for (uint32_t done = 0; done < cols; done += info.block_elements) {
    DequantizeBlock(type, row, out + done);
    row += info.block_bytes;
  }
}

}  // namespace corpusd
