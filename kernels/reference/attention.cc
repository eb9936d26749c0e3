#include "kernels/reference/attention.h"

#include <algorithm>
#include <cmath>

#include "kernels/reference/kv_tile.h"
#include "kernels/reference/rope.h"

namespace corpusd {
namespace {

constexpr uint32_t kMaxHeadDim = 256;

// Tokens of the page that a query at `position` may see.
uint32_t VisibleTokens(const KvPage& page, uint64_t position) {
  if (position < page.first_position) return 0;
  return static_cast<uint32_t>(std::min<uint64_t>(page.tokens, position - page.first_position + 1));
}

// Calls visit(page, format, visible tokens) for every page in order.
template <typename Visit>
void ForEachPage(const ReferenceAttentionTask& task, uint64_t position, Visit visit) {
  for (const KvPageList& list : task.lists) {
    for (const KvPage& page : list.pages) {
      visit(page, *list.format, VisibleTokens(page, position));
    }
  }
}

void AttendOneHead(float* out, const float* q, uint32_t kv_head, uint64_t position,
                   const ReferenceAttentionTask& task, std::span<double> scores) {
  const uint32_t head_dim = task.shape.head_dim;
  size_t count = 0;
  ForEachPage(task, position, [&](const KvPage& page, const KvFormat& format, uint32_t visible) {
    if (visible == 0) return;
    double turned[kMaxHeadDim];
    float key[kMaxHeadDim];
    RotateHead(turned, q, head_dim, task.rope,
               static_cast<uint32_t>(position - page.first_position));
    const std::byte* tile = page.bytes + format.KeyTileOffset(task.layer, kv_head);
    for (uint32_t t = 0; t < visible; ++t) {
      ReadKey(key, tile, format, t);
      double dot = 0;
      for (uint32_t i = 0; i < head_dim; ++i) dot += turned[i] * key[i];
      scores[count++] = dot * task.shape.scale;
    }
  });
  double sums[kMaxHeadDim] = {};
  double total = 0;
  const double largest =
      count == 0 ? 0 : *std::max_element(scores.begin(), scores.begin() + static_cast<long>(count));
  count = 0;
  ForEachPage(task, position, [&](const KvPage& page, const KvFormat& format, uint32_t visible) {
    float value[kMaxHeadDim];
    const std::byte* tile = page.bytes + format.ValueTileOffset(task.layer, kv_head);
    for (uint32_t t = 0; t < visible; ++t) {
      ReadValue(value, tile, format, t);
      const double weight = std::exp(scores[count++] - largest);
      total += weight;
      for (uint32_t i = 0; i < head_dim; ++i) sums[i] += weight * value[i];
    }
  });
  for (uint32_t i = 0; i < head_dim; ++i) {
    out[i] = total == 0 ? 0.0f : static_cast<float>(sums[i] / total);
  }
}

}  // namespace

void ReferenceAttention(MatrixView out, MatrixView q, const ReferenceAttentionTask& task,
                        std::span<double> scratch) noexcept {
  const AttentionShape& shape = task.shape;
  const uint32_t group = shape.q_heads / shape.kv_heads;
  for (uint32_t n = 0; n < q.rows; ++n) {
    for (uint32_t h = 0; h < shape.q_heads; ++h) {
      AttendOneHead(out.row(n) + size_t{h} * shape.head_dim, q.row(n) + size_t{h} * shape.head_dim,
                    h / group, task.first_position + n, task, scratch);
    }
  }
}

}  // namespace corpusd
