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

// The scale and the minimum of group `index` (below 8) in the 12 bytes of a Q4_K or Q5_K
// super-block that hold eight 6-bit numbers of each.
struct ScaleAndMin {
  int scale, min;
};
ScaleAndMin UnpackScaleAndMin(const std::byte* packed, uint32_t index) noexcept;

// IEEE binary16 to binary32, exactly (subnormals, infinities and NaNs included).
float HalfToFloat(uint16_t half) noexcept;

}  // namespace corpusd
