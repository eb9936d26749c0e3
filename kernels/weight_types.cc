#include "kernels/weight_types.h"

namespace corpusd {

const WeightTypeInfo* FindWeightType(uint32_t ggml_type) {
  static constexpr WeightTypeInfo kF32Info{"F32", 1, 4};
  static constexpr WeightTypeInfo kF16Info{"F16", 1, 2};
  static constexpr WeightTypeInfo kBf16Info{"BF16", 1, 2};
  static constexpr WeightTypeInfo kQ4_0Info{"Q4_0", 32, 18};
  static constexpr WeightTypeInfo kQ4_1Info{"Q4_1", 32, 20};
  static constexpr WeightTypeInfo kQ5_0Info{"Q5_0", 32, 22};
  static constexpr WeightTypeInfo kQ5_1Info{"Q5_1", 32, 24};
  static constexpr WeightTypeInfo kQ8_0Info{"Q8_0", 32, 34};
  static constexpr WeightTypeInfo kQ4_KInfo{"Q4_K", 256, 144};
  static constexpr WeightTypeInfo kQ5_KInfo{"Q5_K", 256, 176};
  static constexpr WeightTypeInfo kQ6_KInfo{"Q6_K", 256, 210};
  switch (static_cast<WeightType>(ggml_type)) {
    case WeightType::kF32:
      return &kF32Info;
    case WeightType::kF16:
      return &kF16Info;
    case WeightType::kBf16:
      return &kBf16Info;
    case WeightType::kQ4_0:
      return &kQ4_0Info;
    case WeightType::kQ4_1:
      return &kQ4_1Info;
    case WeightType::kQ5_0:
      return &kQ5_0Info;
    case WeightType::kQ5_1:
      return &kQ5_1Info;
    case WeightType::kQ8_0:
      return &kQ8_0Info;
    case WeightType::kQ4_K:
      return &kQ4_KInfo;
    case WeightType::kQ5_K:
      return &kQ5_KInfo;
    case WeightType::kQ6_K:
      return &kQ6_KInfo;
  }
  return nullptr;
}

uint64_t WeightRowBytes(WeightType type, uint32_t cols) {
  const WeightTypeInfo* const info = FindWeightType(static_cast<uint32_t>(type));
  return uint64_t{cols} / info->block_elements * info->block_bytes;
}

}  // namespace corpusd
