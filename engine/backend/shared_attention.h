// engine/backend/shared_attention.h -- how attention of several sequences, one query row each, is
// cut: parts of pages that neighbouring rows have in common are one task for all of them, the
// others are a task a row. Arithmetic on sizes and addresses; computes nothing. One thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cpu/cpu_kernels.h"

namespace corpusd {

// Rows [first_row, first_row + rows) over part `part` of their pages.
struct SharedAttentionItem {
  uint32_t first_row = 0;
  uint32_t rows = 0;
  uint32_t part = 0;
  uint64_t state = 0;  // floats before its state, all KV heads one after the other
};

// Neighbouring rows that begin with the same parts.
struct SharedRows {
  uint32_t first_row = 0;
  uint32_t rows = 0;
  uint32_t common_parts = 0;  // 0 of a row alone
};

struct SharedAttentionPlan {
  std::vector<SharedRows> groups;          // by row
  std::vector<SharedAttentionItem> items;  // those of several rows first, by part, then row
  uint32_t shared_items = 0;               // of several rows
  uint64_t state_floats = 0;               // of all items and KV heads

  // pages: of each row, in the order of its sequence. group: query heads of a KV head.
  static SharedAttentionPlan Make(std::span<const std::vector<PageTiles>> pages,
                                  const AttentionShape& shape);
};

// One row of a state of so many.
void CopyRowState(const AttentionShape& shape, uint32_t rows, uint32_t row, const float* state,
                  float* row_state);

// Copies the states of one row and KV head out of the plan's states: [parts][AttentionStateFloats
// of one row], as merge_parts takes them.
void GatherRowStates(const SharedAttentionPlan& plan, const AttentionShape& shape, uint32_t row,
                     uint32_t kv_head, const float* states, float* row_states);

}  // namespace corpusd
