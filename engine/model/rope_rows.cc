#include "engine/model/rope_rows.h"

#include <cstring>

namespace corpusd {

bool IsQueryOrKey(std::string_view tensor) {
  return tensor.find(".attn_q") != std::string_view::npos ||
         tensor.find(".attn_k") != std::string_view::npos;
}

std::vector<uint32_t> RowsFromHalves(uint32_t head_dim, uint32_t turning) {
  std::vector<uint32_t> rows;
  for (uint32_t i = 0; i < head_dim; ++i) {
    rows.push_back(i >= turning ? i : i / 2 + i % 2 * (turning / 2));
  }
  return rows;
}

std::vector<std::byte> ReorderRows(std::span<const std::byte> rows, size_t row_bytes,
                                   const std::vector<uint32_t>& rows_of_head) {
  std::vector<std::byte> ordered(rows.size());
  const size_t head_dim = rows_of_head.size();
  for (size_t r = 0; r < rows.size() / row_bytes; ++r) {
    const size_t from = r / head_dim * head_dim + rows_of_head[r % head_dim];
    std::memcpy(ordered.data() + r * row_bytes, rows.data() + from * row_bytes, row_bytes);
  }
  return ordered;
}

std::vector<float> ReorderNumbers(const std::vector<float>& numbers,
                                  const std::vector<uint32_t>& rows_of_head) {
  std::vector<float> ordered(numbers.size());
  for (size_t i = 0; i < numbers.size(); ++i) {
    const size_t inside = i % rows_of_head.size();
    ordered[i] = numbers[i - inside + rows_of_head[inside]];
  }
  return ordered;
}

}  // namespace corpusd
