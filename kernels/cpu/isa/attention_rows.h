// kernels/cpu/isa/attention_rows.h -- what attention does to the stacked query rows (rows x heads
// that share the KV head) of a page: turning them to the page's frame and into a basis, softmax,
// merging; and the tiles as the products take them. One row's arithmetic never sees another row.
// Included after float_matmul.h and coded_unpack.h by one translation unit.
#pragma once

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

// A coded tile as the products take it.
struct UnpackedTile {
  std::byte* levels;  // [kBlockTokens * head_dim]
  float* scales;      // [kBlockTokens]
  float* means;       // [head_dim]
};

// The arrays of a task inside its scratch.
template <typename Element>
struct AttentionWork {
  std::byte* expanded;  // one tile
  Element* queries;     // [stacked, head_dim]
  float* scores;        // [stacked, kBlockTokens]
  Element* weights;     // [stacked, kBlockTokens]
  float* part;          // states
  float* total;
  float* pending;  // [kMergeDepth - 1] states, of a fold below its first
  // Of tasks with a basis, or coded tiles.
  float* turned;     // [stacked, head_dim]: queries turned to the page's frame
  float* mapped;     // [stacked, head_dim]: and in its coordinates
  float* constants;  // [stacked]: added to the row's scores of the page
  float* masses;     // [stacked]: the row's sum of exponentials of the page
  UnpackedTile keys, values;
  std::byte* page;  // an expanded page, and what expanding takes
};

// Rows that the arrays of queries and scores hold.
inline uint32_t StackedRoom(const AttentionTask& task) {
  const uint32_t group = task.shape.q_heads / task.shape.kv_heads;
  return (AttentionRowsMax(task.shape) * group + 15) / 16 * 16;
}

template <typename Element>
inline AttentionWork<Element> Carve(const AttentionTask& task) {
  const size_t head_dim = task.shape.head_dim;
  const size_t stacked = StackedRoom(task);
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
  next += stacked * (head_dim + 2);
  work.turned = next;
  work.mapped = work.turned + stacked * head_dim;
  work.constants = work.mapped + stacked * head_dim;
  work.masses = work.constants + stacked;
  next = work.masses + stacked;
  for (UnpackedTile* tile : {&work.keys, &work.values}) {
    tile->scales = next;
    tile->means = next + kBlockTokens;
    next = tile->means + head_dim;
  }
  // Keys are done with when values are unpacked: one place for both, which stays in L1.
  work.keys.levels = reinterpret_cast<std::byte*>(next);
  work.values.levels = work.keys.levels;
  work.pending = reinterpret_cast<float*>(work.keys.levels + kBlockTokens * head_dim);
  const size_t page =
      reinterpret_cast<std::byte*>(work.pending + (kMergeDepth - 1) * stacked * (head_dim + 2)) -
      task.scratch;
  work.page = task.scratch + (page + 63) / 64 * 64;
  return work;
}

// Whether a task's pages are multiplied with in their coordinates.
inline bool InBasis(const AttentionTask& task) {
  return task.basis != nullptr && !ExpandsPages(task);
}

struct FloatRow {
  using Element = float;
  static void StoreElements(float* p, Lanes v) { Store(p, v); }
};

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

// The keys of a page that a row may see: [hidden, visible).
struct SeenKeys {
  uint32_t hidden;
  uint32_t visible;
  // The 16 keys from i on, `other` in the place of those that the row may not see.
  Lanes Keep(Lanes v, uint32_t i, Lanes other) const {
    if (i + kLanes > visible) v = KeepFirst(v, visible > i ? visible - i : 0, other);
    if (i < hidden) v = KeepFirst(other, hidden - i, v);
    return v;
  }
};

// How raw products become a row's scores of a page: times key_scales unless null, plus a constant.
struct ScoreMap {
  const float* key_scales;
  float constant;
};

// The largest of a row's scores of a page, or `before` if that is larger; those of keys that the
// row may not see become minus infinity. padded: the end of the keys of the last row, rounded up.
inline float LargestScore(float* scores, SeenKeys seen, uint32_t padded, ScoreMap map,
                          float before) {
  const Lanes nothing = Broadcast(kMinusInfinity);
  const Lanes constant = Broadcast(map.constant);
  Lanes top = nothing;
  for (uint32_t i = 0; i < padded; i += kLanes) {
    Lanes s = Load(scores + i);
    s = map.key_scales == nullptr ? Add(s, constant) : Fma(s, Load(map.key_scales + i), constant);
    s = seen.Keep(s, i, nothing);
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

// A tile of one KV head as the products take it. Coded tiles are unpacked: their depth is in slot
// order (coded_unpack.h) and they have means.
struct PageTile {
  const std::byte* tile;
  KvCodec codec;        // kBf16 or kInt8
  const float* scales;  // of int8 codes, or null
  const float* means;   // of coded tiles, or null
};

inline PageTile ResolveTile(const std::byte* tile, KvCodec codec, bool is_key, uint32_t head_dim,
                            uint32_t tokens, const UnpackedTile& unpacked) {
  if (codec == KvCodec::kBf16) return {tile, codec, nullptr, nullptr};
  if (codec == KvCodec::kInt8) {
    const auto* scales = reinterpret_cast<const float*>(tile + size_t{kBlockTokens} * head_dim);
    return {tile, codec, scales, nullptr};
  }
  UnpackTile(unpacked.levels, tile, CodeBits(codec), is_key, head_dim, tokens);
  UnpackScales(unpacked.scales, unpacked.means, tile, CodeBits(codec), is_key, head_dim);
  return {unpacked.levels, KvCodec::kInt8, unpacked.scales, unpacked.means};
}

// Turns one row's scores of a page into weights. RETURNS their sum.
template <typename Policy>
inline float WeighRow(float* scores, typename Policy::Element* weights, SeenKeys seen,
                      uint32_t padded, ScoreMap map, const PageTile& values, uint32_t row,
                      SoftmaxState state, uint32_t head_dim) {
  const float largest = LargestScore(scores, seen, padded, map, state.largest[row]);
  const Lanes shift = Broadcast(largest);
  Lanes sum = Zero();
  for (uint32_t i = 0; i < padded; i += kLanes) {
    Lanes e = Exp2(Sub(Load(scores + i), shift));
    e = seen.Keep(e, i, Zero());  // keys that the row may not see weigh exactly nothing
    sum = Add(sum, e);
    if (values.means != nullptr) e = ToSlotOrder(e);
    if (values.scales != nullptr) e = Mul(e, Load(values.scales + i));
    Policy::StoreElements(weights + i, e);
  }
  const float mass = ReduceAdd(sum);
  AddToRow(state, row, largest, mass, head_dim);
  return mass;
}

// Adds each row's mass of the page times the block's means to what it has gathered.
inline void AddMeans(const float* means, const float* masses, uint32_t first, uint32_t stacked,
                     SoftmaxState state, uint32_t head_dim) {
  if (means == nullptr) return;
  for (uint32_t s = first; s < first + stacked; ++s) {
    float* values = state.values + size_t{s} * head_dim;
    const Lanes mass = Broadcast(masses[s]);
    for (uint32_t i = 0; i < head_dim; i += kLanes) {
      Store(values + i, Fma(mass, Load(means + i), Load(values + i)));
    }
  }
}

// What the rows of a task see of a page.
struct PageView {
  uint64_t first_seen;  // keys before or at the task's first row, modulo 2^64: it may see none
  uint32_t tokens;      // of the page
  uint32_t hidden;      // of them, from the first
  int64_t before;       // keys before the window of the task's first row; a row later, one more
  uint32_t skip;        // rows that see nothing of the page, from the first
  uint32_t end;         // rows from here on see nothing of it either: their windows begin behind it
  uint32_t padded;      // keys that the last row sees, rounded up
  uint32_t first;       // stacked rows [first, first + stacked) see some
  uint32_t stacked;
  uint32_t VisibleAt(uint32_t row) const {
    const uint64_t seen = first_seen + row;
    return seen < tokens ? static_cast<uint32_t>(seen) : tokens;
  }
  SeenKeys SeenAt(uint32_t row) const {
    const int64_t cut = before + row;
    return {cut > int64_t{hidden} ? static_cast<uint32_t>(cut) : hidden, VisibleAt(row)};
  }
};

inline uint64_t PositionOf(const AttentionTask& task, uint32_t row) {
  const uint32_t r = task.first_row + row;
  return task.positions == nullptr ? task.first_position + r : task.positions[r];
}

// stacked is 0 if the task sees nothing of the page.
inline PageView ViewOf(const AttentionTask& task, const PageTiles& page, uint32_t multiple) {
  const uint32_t group = task.shape.q_heads / task.shape.kv_heads;
  const uint64_t position = PositionOf(task, 0);
  const uint64_t first_seen = page.first_position + page.hidden;
  PageView view = {};
  if (page.tokens <= page.hidden || position + task.rows <= first_seen) return view;
  view.first_seen = task.positions == nullptr ? position + 1 - page.first_position : page.tokens;
  view.tokens = page.tokens;
  view.hidden = page.hidden;
  view.skip = static_cast<uint32_t>(first_seen > position ? first_seen - position : 0);
  view.before = INT64_MIN / 2;
  view.end = task.rows;
  if (task.shape.window > 0 && task.positions == nullptr) {
    view.before = static_cast<int64_t>(position + 1 - page.first_position) - task.shape.window;
    const int64_t end = int64_t{page.tokens} - view.before;
    if (end <= int64_t{view.skip}) return view;
    if (end < int64_t{view.end}) view.end = static_cast<uint32_t>(end);
  }
  view.padded = (view.VisibleAt(view.end - 1) + multiple - 1) / multiple * multiple;
  view.first = view.skip * group;
  view.stacked = view.end * group - view.first;
  return view;
}

// Rows [first, end) of a task's queries, turned to `position`.
template <typename Policy>
inline void RotateRows(const AttentionTask& task, uint64_t position, uint32_t first, uint32_t end,
                       typename Policy::Element* queries) {
  const uint32_t head_dim = task.shape.head_dim;
  const uint32_t group = task.shape.q_heads / task.shape.kv_heads;
  for (uint32_t row = first; row < end; ++row) {
    const float* q = task.q + size_t{task.first_row + row} * task.q_stride +
                     size_t{task.kv_head} * group * head_dim;
    for (uint32_t h = 0; h < group; ++h) {
      RotateQuery<Policy>(queries + size_t{row * group + h} * head_dim, q + h * head_dim, task,
                          PositionOf(task, row) - position);
    }
  }
}
template <typename Policy>
inline void RotateQueries(const AttentionTask& task, const PageTiles& page, const PageView& view,
                          typename Policy::Element* queries) {
  RotateRows<Policy>(task, page.first_position, view.skip, view.end, queries);
}
// The first row that the task's frame is not behind: those before it see nothing.
inline uint32_t FirstInFrame(const AttentionTask& task) {
  const uint64_t position = PositionOf(task, 0);
  if (position >= task.frame) return 0;
  return static_cast<uint32_t>(task.frame - position < task.rows ? task.frame - position
                                                                 : task.rows);
}

// q . mean of what the page's keys are relative to, q in their coordinates.
inline float QueryConstant(const float* q, const float* key_means, uint32_t head_dim,
                           const KvCoordinates& to) {
  Lanes sum = Zero();
  for (uint32_t i = 0; i < head_dim; i += kLanes) {
    Lanes middle = Load(to.mean_coordinates + i);
    if (key_means != nullptr) middle = Add(middle, Load(key_means + i));
    sum = Fma(Load(q + i), middle, sum);
  }
  return ReduceAdd(sum);
}

// How most policies bring queries into a basis: in float32, page by page.
struct FloatMapping {
  template <typename Work>
  static void BeginPart(const AttentionTask& /*task*/, uint32_t /*first*/, uint32_t /*end*/,
                        const Work& /*work*/) {}
  // Rows [first, first + count) of work.turned into those of work.mapped.
  template <typename Work>
  static void MapRows(const AttentionTask& task, uint32_t first, uint32_t count, const Work& work) {
    const uint32_t head_dim = task.shape.head_dim;
    const size_t start = size_t{first} * head_dim;
    MatrixGemm(count, work.turned + start, head_dim, task.basis->key.query, head_dim,
               work.mapped + start, head_dim);
  }
};

// Queries turned to the page's frame, in the coordinates of its keys, in slot order if the keys
// are; into work.mapped, and the rows' constants. REQUIRES: task.basis.
template <typename Policy, typename Work>
inline void MapQueries(const AttentionTask& task, const PageTiles& page, const PageView& view,
                       const float* key_means, const Work& work) {
  const uint32_t head_dim = task.shape.head_dim;
  RotateQueries<FloatRow>(task, page, view, work.turned);
  Policy::MapRows(task, view.first, view.stacked, work);
  for (uint32_t s = view.first; s < view.first + view.stacked; ++s) {
    float* row = work.mapped + size_t{s} * head_dim;
    work.constants[s] = QueryConstant(row, key_means, head_dim, task.basis->key);
    if (key_means == nullptr) continue;
    for (uint32_t i = 0; i < head_dim; i += kLanes) Store(row + i, ToSlotOrder(Load(row + i)));
  }
}

template <typename Policy>
inline void PreparePageQueries(const AttentionTask& task, const PageTiles& page,
                               const PageView& view, const float* key_means,
                               const AttentionWork<typename Policy::Element>& work) {
  if (ExpandsPages(task)) return;  // they are, in the frame of all pages
  if (task.basis == nullptr) return RotateQueries<Policy>(task, page, view, work.queries);
  MapQueries<Policy>(task, page, view, key_means, work);
  const size_t first = size_t{view.first} * task.shape.head_dim;
  const size_t end = first + size_t{view.stacked} * task.shape.head_dim;
  for (size_t i = first; i < end; i += kLanes) {
    Policy::StoreElements(work.queries + i, Load(work.mapped + i));
  }
}

}  // namespace
}  // namespace corpusd
