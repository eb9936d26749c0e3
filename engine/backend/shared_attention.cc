#include "engine/backend/shared_attention.h"

#include <algorithm>
#include <cstring>

namespace corpusd {
namespace {

bool SamePage(const PageTiles& a, const PageTiles& b) {
  return a.keys == b.keys && a.values == b.values && a.first_position == b.first_position &&
         a.tokens == b.tokens && a.hidden == b.hidden && a.key_codec == b.key_codec &&
         a.value_codec == b.value_codec;
}

// Whole parts that both begin with.
uint32_t CommonParts(const std::vector<PageTiles>& a, const std::vector<PageTiles>& b) {
  const size_t limit = std::min(a.size(), b.size());
  size_t same = 0;
  while (same < limit && SamePage(a[same], b[same])) ++same;
  return static_cast<uint32_t>(same / kPartPages);
}

}  // namespace

SharedAttentionPlan SharedAttentionPlan::Make(std::span<const std::vector<PageTiles>> pages,
                                              const AttentionShape& shape) {
  SharedAttentionPlan plan;
  const auto rows = static_cast<uint32_t>(pages.size());
  const uint32_t rows_max = AttentionRowsMax(shape);
  const auto add = [&](uint32_t first, uint32_t count, uint32_t part) {
    plan.items.push_back({first, count, part, plan.state_floats});
    if (count > 1) ++plan.shared_items;
    plan.state_floats += shape.kv_heads * AttentionStateFloats(shape, count);
  };
  for (uint32_t first = 0; first < rows;) {
    const auto all = [&](uint32_t row) {
      return AttentionParts(static_cast<uint32_t>(pages[row].size()));
    };
    uint32_t end = first + 1;
    uint32_t common = all(first);
    while (end < rows && end - first < rows_max) {
      const uint32_t with = std::min(common, CommonParts(pages[first], pages[end]));
      if (with == 0) break;
      common = with;
      ++end;
    }
    if (end == first + 1) common = 0;  // alone: every part is its own
    plan.groups.push_back({first, end - first, common});
    for (uint32_t part = 0; part < common; ++part) add(first, end - first, part);
    for (uint32_t row = first; row < end; ++row) {
      for (uint32_t part = common; part < all(row); ++part) add(row, 1, part);
    }
    first = end;
  }
  std::stable_sort(plan.items.begin(), plan.items.end(),
                   [](const SharedAttentionItem& a, const SharedAttentionItem& b) {
                     return a.rows >
                            b.rows;  // the long ones first: nobody waits for them at the end
                   });
  return plan;
}

void CopyRowState(const AttentionShape& shape, uint32_t rows, uint32_t row, const float* state,
                  float* row_state) {
  const size_t group = shape.q_heads / shape.kv_heads;
  const size_t value_floats = group * shape.head_dim;
  // Values, largest scores, sums, each of all stacked rows.
  std::memcpy(row_state, state + row * value_floats, value_floats * sizeof(float));
  state += rows * value_floats;
  std::memcpy(row_state + value_floats, state + row * group, group * sizeof(float));
  state += rows * group;
  std::memcpy(row_state + value_floats + group, state + row * group, group * sizeof(float));
}

void GatherRowStates(const SharedAttentionPlan& plan, const AttentionShape& shape, uint32_t row,
                     uint32_t kv_head, const float* states, float* row_states) {
  const uint64_t row_floats = AttentionStateFloats(shape, 1);
  for (const SharedAttentionItem& item : plan.items) {
    if (row < item.first_row || row >= item.first_row + item.rows) continue;
    CopyRowState(shape, item.rows, row - item.first_row,
                 states + item.state + kv_head * AttentionStateFloats(shape, item.rows),
                 row_states + item.part * row_floats);
  }
}

}  // namespace corpusd
