// engine/model/fp8_weights.h -- matrices of 8-bit floats with scales, as checkpoints keep them, to
// bfloat16: E4M3 codes ("FN": no infinities) times one scale a matrix, a row, or a block, of plain
// matrices and of experts. Pure; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/model/safetensors.h"
#include "store/base/result.h"

namespace corpusd {

// Which scales a checkpoint's matrices have.
struct Fp8Scales {
  // Rows and columns of a block; 0: a scale a matrix or a row.
  uint32_t block_rows = 0, block_cols = 0;
};

// The value of an E4M3 code; NaN for 0x7f and 0xff.
float Fp8Value(uint8_t code);

// RETURNS [rows, cols] bfloat16 of codes, each times its scale; scales is F32, F16 or BF16 and
// holds 1, rows, or (with blocks) [rows / block_rows, cols / block_cols] numbers, rounded up.
// kInvalidArgument if it does not.
Result<std::vector<std::byte>> DecodeFp8(std::span<const std::byte> codes, uint32_t rows,
                                         uint32_t cols, const SafeTensor& scales,
                                         const Fp8Scales& layout);

// Of which expert's matrix the codes are, in a tensor [experts, cols, outputs] of all of them: its
// rows are the outputs from first_output on.
struct Fp8ExpertPlace {
  uint32_t expert = 0, experts = 1;
  uint64_t first_output = 0, outputs = 0;
};

// The same of one expert, whose codes were turned to [rows, cols] already. scales: 1 number, one an
// expert, one for each output of each expert ([experts, 1, outputs] or [experts, outputs, 1]), or
// (with blocks) [experts, cols / block_cols, outputs / block_rows].
Result<std::vector<std::byte>> DecodeFp8Expert(std::span<const std::byte> codes, uint32_t rows,
                                               uint32_t cols, const SafeTensor& scales,
                                               const Fp8Scales& layout,
                                               const Fp8ExpertPlace& place);

}  // namespace corpusd
