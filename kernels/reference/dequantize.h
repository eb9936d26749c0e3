// kernels/reference/dequantize.h -- one row of stored weights to float32, for every WeightType: the
// meaning of the formats, in portable scalar code. Used at load time and by the reference kernels;
// the fast kernels read the packed blocks themselves. Pure; any thread; any alignment of the row.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/weight_types.h"

namespace corpusd {

// row: WeightRowBytes(type, cols) bytes; out: [cols].
// REQUIRES: a valid type, cols a multiple of its block_elements.
void DequantizeRow(WeightType type, const std::byte* row, float* out, uint32_t cols) noexcept;

// IEEE binary16 to binary32, exactly (subnormals, infinities and NaNs included).
float HalfToFloat(uint16_t half) noexcept;

}  // namespace corpusd
