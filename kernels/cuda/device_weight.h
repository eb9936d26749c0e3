// kernels/cuda/device_weight.h -- matrices of weights as the products of a CUDA device read them:
// bfloat16 as it is, or codes of 8 or 4 bits that stay codes in memory. Plain data; usable without
// CUDA headers.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/page.h"

namespace corpusd::cuda {

// Codes come in groups of 32 inputs with a scale d each, 4-bit ones with an offset m too: w = d q +
// m, as ggml's Q8_0 (q signed) and Q4_1 (q 0 .. 15) have them. They lie such that lane 4g + t of a
// warp reads with one load of 16 bytes what it multiplies: inputs 8t .. 8t + 7 of a group, of rows
// g and g + 8.
//
// kGroup8: units of 16 rows x 32 inputs. Codes: 512 bytes a unit, lane after lane 8 bytes of row g,
// 8 of row g + 8. Scales: 32 bytes a unit, by g two halves, d of row g and of row g + 8.
// kGroup4: units of 16 rows x 64 inputs. Codes: 512 bytes a unit, lane after lane the words
// [group 0 row g][group 0 row g + 8][group 1 row g][group 1 row g + 8]; nibble j of a word is input
// 8t + 2j, nibble 4 + j input 8t + 2j + 1. Scales: 128 bytes a unit, by g four pairs of halves (d,
// m) in the order of the words.
// Units go by rows, then inputs. What a matrix lacks of a multiple of 64 rows is zeros.
enum class WeightKind : uint8_t { kBf16, kGroup8, kGroup4 };

struct DeviceWeight {
  const uint8_t* codes = nullptr;   // kBf16: [rows rounded up, cols]
  const uint8_t* scales = nullptr;  // null for kBf16
};

inline constexpr uint32_t kGroupInputs = 32;
inline constexpr uint32_t kUnitRows = 16;
// What the rows of a weight are padded to with zeros, so that tiles need no border.
inline constexpr uint32_t kWeightRowMultiple = 64;
constexpr uint32_t WeightColMultiple(WeightKind kind) {
  return kind == WeightKind::kGroup4 ? 64 : 32;
}
constexpr uint64_t PaddedWeightRows(uint64_t rows) {
  return (rows + kWeightRowMultiple - 1) / kWeightRowMultiple * kWeightRowMultiple;
}
constexpr uint64_t WeightCodeBytes(WeightKind kind, uint64_t rows, uint64_t cols) {
  const uint64_t numbers = PaddedWeightRows(rows) * cols;
  return kind == WeightKind::kBf16     ? 2 * numbers
         : kind == WeightKind::kGroup8 ? numbers
                                       : numbers / 2;
}
constexpr uint64_t WeightScaleBytes(WeightKind kind, uint64_t rows, uint64_t cols) {
  const uint64_t groups = PaddedWeightRows(rows) * cols / kGroupInputs;
  return kind == WeightKind::kBf16 ? 0 : kind == WeightKind::kGroup8 ? 2 * groups : 4 * groups;
}

// Blocks of a model file, 32 weights each, that the kinds of groups are made from.
enum class BlockLayout : uint8_t { kQ4_0, kQ4_1, kQ5_0, kQ8_0 };
constexpr uint32_t BlockBytesOf(BlockLayout layout) {
  switch (layout) {
    case BlockLayout::kQ4_0:
      return 18;
    case BlockLayout::kQ4_1:
      return 20;
    case BlockLayout::kQ5_0:
      return 22;
    default:
      return 34;
  }
}
// Puts rows of blocks, [rows, cols / 32] on the device, where rows first_row .. of a weight are.
// kGroup4 takes Q4_0 and Q4_1, kGroup8 Q5_0 and Q8_0. Enqueues one kernel, returns a cudaError_t.
int PackBlocks(WeightKind kind, BlockLayout layout, const uint8_t* blocks, uint32_t rows,
               uint32_t cols, uint32_t first_row, uint8_t* codes, uint8_t* scales,
               CUstream_st* stream);

}  // namespace corpusd::cuda
