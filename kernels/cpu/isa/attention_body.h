// kernels/cpu/isa/attention_body.h -- attention over KV pages with an online softmax, over Lanes
// and a Policy that says in which type queries and weights are multiplied with the tiles. For every
// page: the stacked query rows (rows x heads that share the KV head) are rotated to the page's
// frame, multiplied with the K tile, exponentiated, and multiplied with the V tile. One row's
// arithmetic never sees another row. Included after vector_math.h by one translation unit.
#pragma once

// Policy: Element (of queries and weights), Attend(task, page, next, work, state) for one page.
// Most take AttendPage for it, which asks for StoreElements(Element*, Lanes), kTokenMultiple (of
// keys taken), kFetchesAhead (Multiply asks for the tile at `ahead` itself), and
//   Multiply(rows, a, a_stride, codec, tile, tile_cols, cols, depth, expanded, c, c_stride, add,
//            ahead):
//   c[rows][cols] (+)= a[rows][depth] * tile, the tile being [depth / g][tile_cols][g], g = 2 or 4.

#include "kernels/cpu/cpu_kernels.h"

namespace corpusd {
namespace {

constexpr float kMinusInfinity = -__builtin_inff();
// Scores are kept times log2 e: the softmax is one of powers of two.
constexpr float kLog2E = 1.44269504f;

// Softmax so far: per stacked row the largest score, the sum of exponentials, the weighted values.
struct SoftmaxState {
  float* values;   // [stacked, head_dim]
  float* largest;  // [stacked]
  float* sum;      // [stacked]
};

inline SoftmaxState StateAt(float* memory, uint32_t stacked, uint32_t head_dim) {
  float* largest = memory + size_t{stacked} * head_dim;
  return {memory, largest, largest + stacked};
}

void ClearState(SoftmaxState state, uint32_t stacked, uint32_t head_dim) {
  for (uint32_t i = 0; i < stacked * head_dim; i += kLanes) Store(state.values + i, Zero());
  for (uint32_t s = 0; s < stacked; ++s) {
    state.largest[s] = kMinusInfinity;
    state.sum[s] = 0;
  }
}

// into = into (+) part, the log-sum-exp merge, row by row; empty rows of either side change
// nothing.
void MergeState(SoftmaxState into, SoftmaxState part, uint32_t stacked, uint32_t head_dim) {
  for (uint32_t s = 0; s < stacked; ++s) {
    if (part.sum[s] == 0) continue;
    const float largest = into.largest[s] > part.largest[s] ? into.largest[s] : part.largest[s];
    const float keep = into.sum[s] == 0 ? 0.0f : Exp2One(into.largest[s] - largest);
    const float take = Exp2One(part.largest[s] - largest);
    into.sum[s] = into.sum[s] * keep + part.sum[s] * take;
    into.largest[s] = largest;
    float* target = into.values + size_t{s} * head_dim;
    const float* source = part.values + size_t{s} * head_dim;
    for (uint32_t i = 0; i < head_dim; i += kLanes) {
      Store(target + i,
            Fma(Load(source + i), Broadcast(take), Mul(Load(target + i), Broadcast(keep))));
    }
  }
}

// The arrays of a task inside its scratch.
template <typename Element>
struct AttentionWork {
  std::byte* expanded;  // one tile
  Element* queries;     // [stacked, head_dim]
  float* scores;        // [stacked, kBlockTokens]
  Element* weights;     // [stacked, kBlockTokens]
  float* part;          // states
  float* total;
};

template <typename Element>
inline AttentionWork<Element> Carve(const AttentionTask& task) {
  const size_t head_dim = task.shape.head_dim;
  const size_t group = task.shape.q_heads / task.shape.kv_heads;
  const size_t stacked = (AttentionRowsMax(task.shape) * group + 15) / 16 * 16;
  AttentionWork<Element> work;
  work.expanded = task.scratch;
  auto* next = reinterpret_cast<float*>(task.scratch) + kBlockTokens * head_dim;
  work.queries = reinterpret_cast<Element*>(next);
  next += stacked * head_dim;
  work.scores = next;
  next += stacked * kBlockTokens;
  work.weights = reinterpret_cast<Element*>(next);
  next += stacked * kBlockTokens;
  work.part = next;
  next += stacked * (head_dim + 2);
  work.total = next;
  return work;
}

template <typename Policy>
inline void RotateQuery(typename Policy::Element* out, const float* q, const AttentionTask& task,
                        uint64_t delta) {
  const uint32_t turned = task.rope == nullptr ? 0 : task.rope->half_dim * 2;
  const float* cos_sin =
      task.rope == nullptr ? nullptr : task.rope->cos_sin + delta * task.rope->half_dim * 2;
  const Lanes scale = Broadcast(task.shape.scale * kLog2E);
  for (uint32_t i = 0; i < task.shape.head_dim; i += kLanes) {
    Lanes v = Load(q + i);
    if (i + kLanes <= turned) {
      v = RotatePairs(v, Load(cos_sin + i));
    } else if (i < turned) {
      float angles[kLanes];
      for (uint32_t j = 0; j < kLanes; ++j) {
        angles[j] = i + j < turned ? cos_sin[i + j] : static_cast<float>(1 - j % 2);
      }
      v = RotatePairs(v, Load(angles));
    }
    Policy::StoreElements(out + i, Mul(v, scale));
  }
}

// The largest of a row's scores of a page, or `before` if that is larger. Scores are multiplied by
// key_scales unless it is null; those of keys that the row may not see become minus infinity.
// visible: keys of the page the row may see, at least 1; padded: visible keys of the last row,
// rounded up.
inline float LargestScore(float* scores, uint32_t visible, uint32_t padded, const float* key_scales,
                          float before) {
  const Lanes nothing = Broadcast(kMinusInfinity);
  Lanes top = nothing;
  for (uint32_t i = 0; i < padded; i += kLanes) {
    Lanes s = Load(scores + i);
    if (key_scales != nullptr) s = Mul(s, Load(key_scales + i));
    if (i + kLanes > visible) s = KeepFirst(s, visible > i ? visible - i : 0, nothing);
    Store(scores + i, s);
    top = Max(top, s);
  }
  const float found = ReduceMax(top);
  return found > before ? found : before;
}

// Adds a page's sum of exponentials to a row and rescales what the row has gathered.
inline void AddToRow(SoftmaxState state, uint32_t row, float largest, float page_sum,
                     uint32_t head_dim) {
  const float before = state.largest[row];
  if (largest == before) {
    state.sum[row] += page_sum;
    return;
  }
  const float keep = Exp2One(before - largest);
  state.sum[row] = state.sum[row] * keep + page_sum;
  state.largest[row] = largest;
  float* values = state.values + size_t{row} * head_dim;
  for (uint32_t i = 0; i < head_dim; i += kLanes) {
    Store(values + i, Mul(Load(values + i), Broadcast(keep)));
  }
}

// Turns one row's scores of a page into weights.
template <typename Policy>
inline void WeighRow(float* scores, typename Policy::Element* weights, uint32_t visible,
                     uint32_t padded, const float* key_scales, const float* value_scales,
                     uint32_t row, SoftmaxState state, uint32_t head_dim) {
  const float largest = LargestScore(scores, visible, padded, key_scales, state.largest[row]);
  const Lanes shift = Broadcast(largest);
  Lanes sum = Zero();
  for (uint32_t i = 0; i < padded; i += kLanes) {
    Lanes e = Exp2(Sub(Load(scores + i), shift));
    // Keys that the row may not see weigh exactly nothing.
    if (i + kLanes > visible) e = KeepFirst(e, visible > i ? visible - i : 0, Zero());
    sum = Add(sum, e);
    if (value_scales != nullptr) e = Mul(e, Load(value_scales + i));
    Policy::StoreElements(weights + i, e);
  }
  AddToRow(state, row, largest, ReduceAdd(sum), head_dim);
}

inline const float* ScalesOf(const std::byte* tile, KvCodec codec, uint32_t head_dim) {
  if (codec == KvCodec::kBf16) return nullptr;
  return reinterpret_cast<const float*>(tile + size_t{kBlockTokens} * head_dim);
}

// What the rows of a task see of a page.
struct PageView {
  uint64_t first_seen;  // keys before or at the task's first row, modulo 2^64: it may see none
  uint32_t tokens;      // of the page
  uint32_t skip;        // rows before the page, which see nothing of it
  uint32_t padded;      // keys that the last row sees, rounded up
  uint32_t first;       // stacked rows [first, first + stacked) see some
  uint32_t stacked;
  uint32_t VisibleAt(uint32_t row) const {
    const uint64_t seen = first_seen + row;
    return seen < tokens ? static_cast<uint32_t>(seen) : tokens;
  }
};

// stacked is 0 if the task sees nothing of the page.
inline PageView ViewOf(const AttentionTask& task, const PageTiles& page, uint32_t multiple) {
  const uint32_t group = task.shape.q_heads / task.shape.kv_heads;
  const uint64_t position = task.first_position + task.first_row;
  PageView view = {};
  if (page.tokens == 0 || position + task.rows <= page.first_position) return view;
  view.first_seen = position + 1 - page.first_position;
  view.tokens = page.tokens;
  view.skip =
      static_cast<uint32_t>(page.first_position > position ? page.first_position - position : 0);
  view.padded = (view.VisibleAt(task.rows - 1) + multiple - 1) / multiple * multiple;
  view.first = view.skip * group;
  view.stacked = task.rows * group - view.first;
  return view;
}

template <typename Policy>
inline void RotateQueries(const AttentionTask& task, const PageTiles& page, const PageView& view,
                          typename Policy::Element* queries) {
  const uint32_t head_dim = task.shape.head_dim;
  const uint32_t group = task.shape.q_heads / task.shape.kv_heads;
  const uint64_t position = task.first_position + task.first_row;
  for (uint32_t row = view.skip; row < task.rows; ++row) {
    const float* q = task.q + size_t{task.first_row + row} * task.q_stride +
                     size_t{task.kv_head} * group * head_dim;
    for (uint32_t h = 0; h < group; ++h) {
      RotateQuery<Policy>(queries + size_t{row * group + h} * head_dim, q + h * head_dim, task,
                          position + row - page.first_position);
    }
  }
}

// Asks for a tile of `tokens` slots. A tile is not read in the order of its addresses, so the
// processor does not foresee it.
inline void FetchTile(const std::byte* tile, uint32_t tokens, uint32_t head_dim, KvCodec codec) {
  const size_t bytes = size_t{tokens} * head_dim * (codec == KvCodec::kBf16 ? 2 : 1);
  for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch(tile + i, 0, 2);
}

template <typename Policy>
void AttendPage(const AttentionTask& task, const PageTiles& page, const PageTiles* next,
                const AttentionWork<typename Policy::Element>& work, SoftmaxState state) {
  const PageView view = ViewOf(task, page, Policy::kTokenMultiple);
  if (view.stacked == 0) return;
  const uint32_t head_dim = task.shape.head_dim;
  const uint32_t group = task.shape.q_heads / task.shape.kv_heads;
  const uint32_t first = view.first;
  RotateQueries<Policy>(task, page, view, work.queries);
  const std::byte* keys = page.keys + task.kv_head * page.key_stride;
  const std::byte* values = page.values + task.kv_head * page.value_stride;
  const std::byte* next_keys =
      next == nullptr ? keys : next->keys + task.kv_head * next->key_stride;
  // The values arrive while the keys are multiplied, the next keys while the values are.
  if constexpr (!Policy::kFetchesAhead) FetchTile(values, view.padded, head_dim, page.value_codec);
  Policy::Multiply(view.stacked, work.queries + size_t{first} * head_dim, head_dim, page.key_codec,
                   keys, kBlockTokens, view.padded, head_dim, work.expanded,
                   work.scores + size_t{first} * kBlockTokens, kBlockTokens, false, values);
  if constexpr (!Policy::kFetchesAhead) {
    if (next != nullptr) FetchTile(next_keys, next->tokens, head_dim, next->key_codec);
  }
  const float* key_scales = ScalesOf(keys, page.key_codec, head_dim);
  const float* value_scales = ScalesOf(values, page.value_codec, head_dim);
  for (uint32_t s = first; s < first + view.stacked; ++s) {
    WeighRow<Policy>(work.scores + size_t{s} * kBlockTokens,
                     work.weights + size_t{s} * kBlockTokens, view.VisibleAt(s / group),
                     view.padded, key_scales, value_scales, s, state, head_dim);
  }
  Policy::Multiply(view.stacked, work.weights + size_t{first} * kBlockTokens, kBlockTokens,
                   page.value_codec, values, head_dim, head_dim, view.padded, work.expanded,
                   state.values + size_t{first} * head_dim, head_dim, true, next_keys);
}

template <typename Policy>
void AttendPartInto(const AttentionTask& task, uint32_t part,
                    const AttentionWork<typename Policy::Element>& work, SoftmaxState state) {
  const uint32_t group = task.shape.q_heads / task.shape.kv_heads;
  ClearState(state, task.rows * group, task.shape.head_dim);
  const uint32_t first = part * kPartPages;
  const uint32_t end = MinU32(first + kPartPages, task.page_count);
  for (uint32_t i = first; i < end; ++i) {
    const PageTiles* next = i + 1 < task.page_count ? &task.pages[i + 1] : nullptr;
    Policy::Attend(task, task.pages[i], next, work, state);
  }
}

void WriteAttention(const AttentionTask& task, SoftmaxState total) {
  const uint32_t head_dim = task.shape.head_dim;
  const uint32_t group = task.shape.q_heads / task.shape.kv_heads;
  for (uint32_t s = 0; s < task.rows * group; ++s) {
    float* out = task.out + size_t{task.first_row + s / group} * task.out_stride +
                 (size_t{task.kv_head} * group + s % group) * head_dim;
    const Lanes inverse = Broadcast(total.sum[s] == 0 ? 0.0f : 1.0f / total.sum[s]);
    for (uint32_t i = 0; i < head_dim; i += kLanes) {
      Store(out + i, Mul(Load(total.values + size_t{s} * head_dim + i), inverse));
    }
  }
}

template <typename Policy>
void Attend(const AttentionTask& task) noexcept {
  const auto work = Carve<typename Policy::Element>(task);
  const uint32_t stacked = task.rows * (task.shape.q_heads / task.shape.kv_heads);
  const SoftmaxState total = StateAt(work.total, stacked, task.shape.head_dim);
  const SoftmaxState state = StateAt(work.part, stacked, task.shape.head_dim);
  ClearState(total, stacked, task.shape.head_dim);
  for (uint32_t part = 0; part < AttentionParts(task.page_count); ++part) {
    AttendPartInto<Policy>(task, part, work, state);
    MergeState(total, state, stacked, task.shape.head_dim);
  }
  WriteAttention(task, total);
}

template <typename Policy>
void AttendPart(const AttentionTask& task, uint32_t part, float* memory) noexcept {
  const uint32_t stacked = task.rows * (task.shape.q_heads / task.shape.kv_heads);
  AttendPartInto<Policy>(task, part, Carve<typename Policy::Element>(task),
                         StateAt(memory, stacked, task.shape.head_dim));
}

void MergeParts(const AttentionTask& task, const float* states) noexcept {
  const auto work = Carve<float>(task);
  const uint32_t stacked = task.rows * (task.shape.q_heads / task.shape.kv_heads);
  const SoftmaxState total = StateAt(work.total, stacked, task.shape.head_dim);
  ClearState(total, stacked, task.shape.head_dim);
  for (uint32_t part = 0; part < AttentionParts(task.page_count); ++part) {
    auto* memory = const_cast<float*>(states) + part * AttentionStateFloats(task.shape, task.rows);
    MergeState(total, StateAt(memory, stacked, task.shape.head_dim), stacked, task.shape.head_dim);
  }
  WriteAttention(task, total);
}

}  // namespace
}  // namespace corpusd
