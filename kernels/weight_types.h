// kernels/weight_types.h -- the element types of model files (ggml's ids) and the size of their
// blocks. Plain data; any thread. Decoding is in kernels/reference/dequantize.h.
#pragma once

#include <cstdint>
#include <string_view>

namespace corpusd {

// Values are those of ggml_type in GGUF files (ggml/include/ggml.h).
enum class WeightType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kBf16 = 30,
};

struct WeightTypeInfo {
  std::string_view name;
  uint32_t block_elements = 0;
  uint32_t block_bytes = 0;
};

// RETURNS nullptr if the number is not one of WeightType.
const WeightTypeInfo* FindWeightType(uint32_t ggml_type);
// REQUIRES: a valid type, cols a multiple of block_elements.
uint64_t WeightRowBytes(WeightType type, uint32_t cols);

}  // namespace corpusd
