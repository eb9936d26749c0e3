#include "engine/model/fp8_weights.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/reference/dequantize.h"

namespace corpusd {
namespace {

std::array<float, 256> MakeValues() {
  std::array<float, 256> values{};
  for (uint32_t code = 0; code < 256; ++code) {
    const uint32_t exponent = code >> 3 & 15;
    const uint32_t mantissa = code & 7;
    float value = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                : std::ldexp(static_cast<float>(8 + mantissa),
                                             static_cast<int>(exponent) - 10);
    if (exponent == 15 && mantissa == 7) value = NAN;
    values[code] = code >= 128 ? -value : value;
  }
  return values;
}

// To the nearest, ties to even.
uint16_t RoundToBf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if (value != value) return 0x7fc0;
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

Result<std::vector<float>> ReadScales(const SafeTensor& scales, uint64_t rows,
                                      uint64_t block_columns, uint64_t block_rows) {
  uint64_t count = 1;
  for (const uint64_t dim : scales.dims) count *= dim;
  const WeightType type = scales.dtype == "F32"   ? WeightType::kF32
                          : scales.dtype == "F16" ? WeightType::kF16
                                                  : WeightType::kBf16;
  const bool known = scales.dtype == "F32" || scales.dtype == "F16" || scales.dtype == "BF16";
  const bool fits = block_rows > 0 ? scales.dims == std::vector<uint64_t>{block_rows, block_columns}
                                   : count == 1 || count == rows;
  if (!known || !fits) {
    return InvalidArgumentError("scales '" + scales.name + "' are " + std::to_string(count) +
                                " numbers of " + scales.dtype + ", which do not fit " +
                                std::to_string(rows) + " rows");
  }
  std::vector<float> values(count);
  DequantizeRow(type, scales.bytes.data(), values.data(), static_cast<uint32_t>(count));
  return values;
}

}  // namespace

float Fp8Value(uint8_t code) {
  static const std::array<float, 256> kValues = MakeValues();
  return kValues[code];
}

Result<std::vector<std::byte>> DecodeFp8(std::span<const std::byte> codes, uint32_t rows,
                                         uint32_t cols, const SafeTensor& scales,
                                         const Fp8Scales& layout) {
  const bool blocks = layout.block_rows > 0;
  const uint64_t down = blocks ? (uint64_t{rows} + layout.block_rows - 1) / layout.block_rows : 0;
  const uint64_t across = blocks ? (uint64_t{cols} + layout.block_cols - 1) / layout.block_cols : 0;
  ASSIGN_OR_RETURN(const std::vector<float> values, ReadScales(scales, rows, across, down));
  std::vector<std::byte> decoded(uint64_t{rows} * cols * sizeof(uint16_t));
  std::vector<uint16_t> row(cols);
  for (uint32_t r = 0; r < rows; ++r) {
    const std::byte* const from = codes.data() + uint64_t{r} * cols;
    float scale = values[values.size() == 1 || blocks ? 0 : r];
    for (uint32_t c = 0; c < cols; ++c) {
      if (blocks) scale = values[r / layout.block_rows * across + c / layout.block_cols];
      row[c] = RoundToBf16(Fp8Value(static_cast<uint8_t>(from[c])) * scale);
    }
    std::memcpy(decoded.data() + uint64_t{r} * cols * sizeof(uint16_t), row.data(),
                cols * sizeof(uint16_t));
  }
  return decoded;
}

}  // namespace corpusd
