#include "kernels/reference/attention.h"

#include <algorithm>
#include <cmath>

#include "kernels/reference/coded_tile_codec.h"
#include "kernels/reference/kv_tile.h"
#include "kernels/reference/rope.h"

namespace corpusd {
namespace {

constexpr uint32_t kMaxHeadDim = 256;

// The end of the tokens of the page that a query at `position` may see; they begin at page.hidden.
uint32_t VisibleTokens(const KvPage& page, uint64_t position) {
  if (position < page.first_position) return 0;
  return static_cast<uint32_t>(std::min<uint64_t>(page.tokens, position - page.first_position + 1));
}

// Where they begin: at page.hidden, or where the query's window does.
uint32_t HiddenTokens(const KvPage& page, uint64_t position, uint32_t window) {
  if (window == 0 || position + 1 < page.first_position + window) return page.hidden;
  const uint64_t before = position + 1 - window - page.first_position;
  return std::max(page.hidden, static_cast<uint32_t>(std::min<uint64_t>(before, page.tokens)));
}

// One key or value as the page holds it, in double.
void ReadRow(double* out, const std::byte* tile, bool is_key, const KvFormat& format,
             uint32_t layer, uint32_t token) {
  const LayerCodecs codecs = format.CodecsOf(layer);
  const KvCodec codec = is_key ? codecs.key : codecs.value;
  if (IsCoded(codec)) return ReadCodedRow(out, tile, codec, is_key, format.head_dim, token);
  float plain[kMaxHeadDim];
  if (is_key) {
    ReadKey(plain, tile, format, token);
  } else {
    ReadValue(plain, tile, format, token);
  }
  std::copy_n(plain, format.head_dim, out);
}

// q turned into the page's frame, and into the coordinates of its keys: q . x = q . y + *constant.
void TurnQuery(double* out, double* constant, const float* q, uint32_t head_dim,
               const RopeTable* rope, uint64_t delta, const KvBasis* basis) {
  double turned[kMaxHeadDim];
  RotateHead(turned, q, head_dim, rope, static_cast<uint32_t>(delta));
  *constant = 0;
  if (basis == nullptr) {
    std::copy_n(turned, head_dim, out);
    return;
  }
  for (uint32_t j = 0; j < head_dim; ++j) {
    out[j] = 0;
    for (uint32_t i = 0; i < head_dim; ++i) {
      out[j] += turned[i] * basis->key.query[size_t{i} * head_dim + j];
    }
    *constant += out[j] * basis->key.mean_coordinates[j];
  }
}

// Sums of y become sums of the values themselves.
void ToValues(double* sums, double total, uint32_t head_dim, const KvBasis* basis) {
  if (basis == nullptr) return;
  double y[kMaxHeadDim];
  std::copy_n(sums, head_dim, y);
  for (uint32_t i = 0; i < head_dim; ++i) {
    sums[i] = total * basis->value.mean[i];
    for (uint32_t j = 0; j < head_dim; ++j) {
      sums[i] += y[j] * basis->value.inverse[size_t{j} * head_dim + i];
    }
  }
}

// Calls visit(page, format, visible tokens) for every page in order; the page hides what the window
// leaves out.
template <typename Visit>
void ForEachPage(const ReferenceAttentionTask& task, uint64_t position, Visit visit) {
  for (const KvPageList& list : task.lists) {
    for (KvPage page : list.pages) {
      page.hidden = HiddenTokens(page, position, task.shape.window);
      visit(page, *list.format, VisibleTokens(page, position));
    }
  }
}

void AttendOneHead(float* out, const float* q, uint32_t kv_head, uint64_t position,
                   const ReferenceAttentionTask& task, std::span<double> scores) {
  const uint32_t head_dim = task.shape.head_dim;
  const KvBasis* basis = task.basis == nullptr ? nullptr : task.basis + kv_head;
  size_t count = 0;
  ForEachPage(task, position, [&](const KvPage& page, const KvFormat& format, uint32_t visible) {
    if (visible <= page.hidden) return;
    double turned[kMaxHeadDim];
    double key[kMaxHeadDim];
    double constant = 0;
    TurnQuery(turned, &constant, q, head_dim, task.rope, position - page.first_position, basis);
    const std::byte* tile = page.bytes + format.KeyTileOffset(task.layer, kv_head);
    for (uint32_t t = page.hidden; t < visible; ++t) {
      ReadRow(key, tile, true, format, task.layer, t);
      double dot = constant;
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
    double value[kMaxHeadDim];
    const std::byte* tile = page.bytes + format.ValueTileOffset(task.layer, kv_head);
    for (uint32_t t = page.hidden; t < visible; ++t) {
      ReadRow(value, tile, false, format, task.layer, t);
      const double weight = std::exp(scores[count++] - largest);
      total += weight;
      for (uint32_t i = 0; i < head_dim; ++i) sums[i] += weight * value[i];
    }
  });
  ToValues(sums, total, head_dim, basis);
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
