// engine/model/rope_rows.h -- the order of the rows of queries and keys. Our kernels turn adjacent
// pairs; most files keep the two of a pair half a head apart. Pure; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace corpusd {

// "blk.3.attn_q.weight" and its like: matrices, biases and norms of queries and keys.
bool IsQueryOrKey(std::string_view tensor);

// For each row of a head as the kernels want them, the row of the file. turning: rows that RoPE
// turns, the others stay.
std::vector<uint32_t> RowsFromHalves(uint32_t head_dim, uint32_t turning);

// The rows of all heads in that order. REQUIRES: rows.size() a multiple of row_bytes and heads.
std::vector<std::byte> ReorderRows(std::span<const std::byte> rows, size_t row_bytes,
                                   const std::vector<uint32_t>& rows_of_head);
std::vector<float> ReorderNumbers(const std::vector<float>& numbers,
                                  const std::vector<uint32_t>& rows_of_head);

}  // namespace corpusd
