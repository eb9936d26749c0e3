// kernels/reference/quantize.h -- one row of float32 weights to a stored type: what dequantize.h
// reads back. For weights that are made smaller while a model is loaded, not for keys and values.
// Pure; any thread; any alignment of the row.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/weight_types.h"

namespace corpusd {

// row: [cols]; out: WeightRowBytes(type, cols) bytes. Of Q8_0 and Q4_1 each block has the scale
// (and minimum) of least squared error for its codes; of Q4_1 the best of several ranges that clip
// more or less. RETURNS false, out then being worth nothing, if a number is not finite or beyond
// what float16 scales reach. REQUIRES: type is BF16, Q8_0 or Q4_1, cols a multiple of its block.
bool QuantizeRow(WeightType type, const float* row, std::byte* out, uint32_t cols) noexcept;

// The nearest float16, ties to even; beyond its range the largest.
uint16_t HalfFromFloat(float value) noexcept;

}  // namespace corpusd
