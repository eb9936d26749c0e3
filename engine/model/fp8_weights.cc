#include "engine/model/fp8_weights.h"

#include <array>
#include <cmath>
#include <cstring>

#include "kernels/reference/dequantize.h"
#include "kernels/reference/kv_tile.h"

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

// Where a matrix's scales lie: of (row, col) at first + row / row_block * row_step + col /
// col_block
// * col_step.
struct ScaleLayout {
  uint64_t first = 0, row_step = 0, col_step = 0;
  uint32_t row_block = 1, col_block = 1;
};

uint64_t Blocks(uint64_t count, uint32_t block) { return (count + block - 1) / block; }

uint64_t CountOf(const SafeTensor& scales) {
  uint64_t count = 1;
  for (const uint64_t dim : scales.dims) count *= dim;
  return count;
}

Status DoNotFit(const SafeTensor& scales, const std::string& what) {
  return InvalidArgumentError("scales '" + scales.name + "' are " +
                              std::to_string(CountOf(scales)) + " numbers of " + scales.dtype +
                              ", which do not fit " + what);
}

Result<std::vector<std::byte>> Decode(std::span<const std::byte> codes, uint32_t rows,
                                      uint32_t cols, const SafeTensor& scales,
                                      const ScaleLayout& layout) {
  const WeightType type = scales.dtype == "F32"   ? WeightType::kF32
                          : scales.dtype == "F16" ? WeightType::kF16
                                                  : WeightType::kBf16;
  std::vector<float> values(CountOf(scales));
  DequantizeRow(type, scales.bytes.data(), values.data(), static_cast<uint32_t>(values.size()));
  std::vector<std::byte> decoded(uint64_t{rows} * cols * sizeof(uint16_t));
  std::vector<uint16_t> row(cols);
  for (uint32_t r = 0; r < rows; ++r) {
    const std::byte* const from = codes.data() + uint64_t{r} * cols;
    const float* const of_row = &values[layout.first + r / layout.row_block * layout.row_step];
    for (uint32_t c = 0; c < cols; ++c) {
      const float scale = of_row[c / layout.col_block * layout.col_step];
      row[c] = Bf16FromFloat(Fp8Value(static_cast<uint8_t>(from[c])) * scale);
    }
    std::memcpy(decoded.data() + uint64_t{r} * cols * sizeof(uint16_t), row.data(),
                cols * sizeof(uint16_t));
  }
  return decoded;
}

bool IsKnown(const SafeTensor& scales) {
  return scales.dtype == "F32" || scales.dtype == "F16" || scales.dtype == "BF16";
}

}  // namespace

float Fp8Value(uint8_t code) {
  static const std::array<float, 256> kValues = MakeValues();
  return kValues[code];
}

Result<std::vector<std::byte>> DecodeFp8(std::span<const std::byte> codes, uint32_t rows,
                                         uint32_t cols, const SafeTensor& scales,
                                         const Fp8Scales& layout) {
  ScaleLayout found;
  bool fits = false;
  if (layout.block_rows > 0) {
    const uint64_t across = Blocks(cols, layout.block_cols);
    fits = scales.dims == std::vector<uint64_t>{Blocks(rows, layout.block_rows), across};
    found = {0, across, 1, layout.block_rows, layout.block_cols};
  } else {
    fits = CountOf(scales) == 1 || CountOf(scales) == rows;
    found.row_step = CountOf(scales) == 1 ? 0 : 1;
  }
  if (!fits || !IsKnown(scales)) return DoNotFit(scales, std::to_string(rows) + " rows");
  return Decode(codes, rows, cols, scales, found);
}

Result<std::vector<std::byte>> DecodeFp8Expert(std::span<const std::byte> codes, uint32_t rows,
                                               uint32_t cols, const SafeTensor& scales,
                                               const Fp8Scales& layout,
                                               const Fp8ExpertPlace& place) {
  const uint64_t count = CountOf(scales);
  ScaleLayout found;
  bool fits = true;
  if (layout.block_rows > 0) {
    const uint64_t down = Blocks(cols, layout.block_cols);
    const uint64_t across = Blocks(place.outputs, layout.block_rows);
    fits = scales.dims == std::vector<uint64_t>{place.experts, down, across} &&
           place.first_output % layout.block_rows == 0;
    found = {place.expert * down * across + place.first_output / layout.block_rows, 1, across,
             layout.block_rows, layout.block_cols};
  } else if (count == place.experts * place.outputs) {
    found = {place.expert * place.outputs + place.first_output, 1, 0, 1, 1};
  } else if (count == place.experts) {
    found.first = place.expert;
  } else {
    fits = count == 1;
  }
  if (!fits || !IsKnown(scales)) {
    return DoNotFit(scales, std::to_string(place.experts) + " experts of " +
                                std::to_string(place.outputs) + " outputs");
  }
  return Decode(codes, rows, cols, scales, found);
}

}  // namespace corpusd
