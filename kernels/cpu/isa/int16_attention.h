// kernels/cpu/isa/int16_attention.h -- attention of many query rows in exact integer products, as
// in int16_blocks.h: queries, keys, softmax weights and values become int16, each with a scale of
// its own, and the sums over a head's dimensions, or over a page's tokens, are 32-bit integers that
// cannot overflow. A scale is a function of one query row, one key, one value alone, so a row's
// bits depend neither on other rows nor on tokens behind it. Included after int16_blocks.h and
// attention_body.h by one translation unit.
#pragma once

namespace corpusd {
namespace {

// Largest code of a value: the norm over 128 tokens stays below 65000.
constexpr float kValueLimit = 5700.0f;

// Arrays of a task, in the places that floats would take.
struct Int16Work {
  int16_t* keys;        // [tokens / 16][head_dim / 2][16][2]
  int16_t* values;      // [head_dim / 16][tokens / 2][16][2]
  int16_t* queries;     // [stacked], rows of 2 * head_dim
  int16_t* weights;     // [stacked], rows of kBlockTokens
  float* query_scales;  // [stacked]
  float* weight_scales;
  alignas(64) float key_scales[kBlockTokens];
  alignas(64) float value_scales[kBlockTokens];
};

inline void CarveInt16(const AttentionTask& task, const AttentionWork<float>& work,
                       Int16Work& out) {
  const size_t head_dim = task.shape.head_dim;
  const size_t stacked = size_t{task.rows} * (task.shape.q_heads / task.shape.kv_heads);
  out.keys = reinterpret_cast<int16_t*>(work.expanded);
  out.values = out.keys + kBlockTokens * head_dim;
  out.queries = reinterpret_cast<int16_t*>(work.queries);
  out.weights = reinterpret_cast<int16_t*>(work.weights);
  out.query_scales = work.weights + stacked * kBlockTokens / 2;
  out.weight_scales = out.query_scales + stacked;
}

// c[rows][cols] (+)= (a[rows] . panels) * row scales (* column scales).
struct Int16Product {
  const int16_t* a;
  size_t a_stride;
  const float* row_scales;
  const int16_t* panels;  // [cols / 16][pairs][16][2]
  const float* column_scales;
  uint32_t pairs;
  float* c;
  size_t c_stride;
  bool add;

  template <uint32_t kRows, uint32_t kPanels>
  void Run(uint32_t first_row) const {
    IntLanes dots[kRows][kPanels];
    DotTile<kRows, kPanels>(a + first_row * a_stride, a_stride, panels, size_t{pairs} * 2 * kLanes,
                            pairs, dots);
#pragma GCC unroll 16
    for (uint32_t r = 0; r < kRows; ++r) {
      const Lanes row_scale = BroadcastFrom(row_scales + first_row + r);
#pragma GCC unroll 2
      for (uint32_t p = 0; p < kPanels; ++p) {
        float* target = c + (first_row + r) * c_stride + p * kLanes;
        Lanes scale = row_scale;
        if (column_scales != nullptr) scale = Mul(scale, Load(column_scales + p * kLanes));
        const Lanes before = add ? Load(target) : Zero();
        Store(target, Fma(ToFloat(dots[r][p]), scale, before));
      }
    }
  }
};

inline void MultiplyPanels(Int16Product product, uint32_t rows, uint32_t cols) {
  for (uint32_t i = 0; i < cols; i += kInt16TilePanels * kLanes) {
    const uint32_t panels = MinU32(kInt16TilePanels, (cols - i) / kLanes);
    if (panels == kInt16TilePanels) {
      ForEachRowTile<kInt16TilePanels>(rows, product);
    } else {
      ForEachRowTile<1>(rows, product);
    }
    product.panels += size_t{panels} * product.pairs * 2 * kLanes;
    product.c += panels * kLanes;
    if (product.column_scales != nullptr) product.column_scales += panels * kLanes;
  }
}

// Keys of the first `tokens` slots: codes of norm 32767, or the tile's own codes.
inline void ExpandKeys(const PageTile& keys, uint32_t head_dim, uint32_t tokens, Int16Work& work) {
  const std::byte* tile = keys.tile;
  int16_t* out = work.keys;
  for (uint32_t t = 0; t < tokens; t += kLanes) {
    if (keys.codec == KvCodec::kInt8) {
      Store(work.key_scales + t, Load(keys.scales + t));
      for (uint32_t i = 0; i < head_dim; i += 4, out += 4 * kLanes) {
        const IntLanes v = LoadInt(tile + (size_t{i / 4} * kBlockTokens + t) * 4);
        StoreInt(out, BytePairs<0>(v));
        StoreInt(out + 2 * kLanes, BytePairs<2>(v));
      }
      continue;
    }
    Lanes squares = Zero();
    for (uint32_t i = 0; i < head_dim; i += 2) {
      const IntLanes v = LoadInt(tile + (size_t{i / 2} * kBlockTokens + t) * 4);
      squares = Fma(LowBf16ToFloat(v), LowBf16ToFloat(v), squares);
      squares = Fma(HighBf16ToFloat(v), HighBf16ToFloat(v), squares);
    }
    const Lanes norm = Sqrt(squares);
    const Lanes inverse = ZeroBelow(Div(Broadcast(kRowNorm), norm), norm, Broadcast(kSmallestNorm));
    Store(work.key_scales + t, Mul(norm, Broadcast(1.0f / kRowNorm)));
    for (uint32_t i = 0; i < head_dim; i += 2, out += 2 * kLanes) {
      const IntLanes v = LoadInt(tile + (size_t{i / 2} * kBlockTokens + t) * 4);
      StoreInt(out, RoundPairs(Mul(LowBf16ToFloat(v), inverse), Mul(HighBf16ToFloat(v), inverse)));
    }
  }
}

// The two values of slots t and t + 1: codes up to kValueLimit.
inline void ExpandValuePair(const std::byte* row, uint32_t head_dim, uint32_t panel_stride,
                            int16_t* out, float* scales) {
  Lanes even = Zero();
  Lanes odd = Zero();
  for (uint32_t i = 0; i < head_dim; i += kLanes) {
    const IntLanes v = LoadInt(row + size_t{i} * 4);
    even = Max(even, Absolute(LowBf16ToFloat(v)));
    odd = Max(odd, Absolute(HighBf16ToFloat(v)));
  }
  const float largest[2] = {ReduceMax(even), ReduceMax(odd)};
  scales[0] = largest[0] * (1.0f / kValueLimit);
  scales[1] = largest[1] * (1.0f / kValueLimit);
  const Lanes inverse[2] = {
      Broadcast(largest[0] < kSmallestNorm ? 0.0f : kValueLimit / largest[0]),
      Broadcast(largest[1] < kSmallestNorm ? 0.0f : kValueLimit / largest[1])};
  for (uint32_t i = 0; i < head_dim; i += kLanes) {
    const IntLanes v = LoadInt(row + size_t{i} * 4);
    StoreInt(out + size_t{i / kLanes} * panel_stride,
             RoundPairs(Mul(LowBf16ToFloat(v), inverse[0]), Mul(HighBf16ToFloat(v), inverse[1])));
  }
}

inline void ExpandValues(const PageTile& values, uint32_t head_dim, uint32_t tokens,
                         Int16Work& work) {
  const std::byte* tile = values.tile;
  const uint32_t panel_stride = tokens * kLanes;
  if (values.codec == KvCodec::kBf16) {
    for (uint32_t t = 0; t < tokens; t += 2) {
      ExpandValuePair(tile + size_t{t} * head_dim * 2, head_dim, panel_stride,
                      work.values + size_t{t} * kLanes, work.value_scales + t);
    }
    return;
  }
  for (uint32_t t = 0; t < tokens; t += 4) {
    for (uint32_t i = 0; i < head_dim; i += kLanes) {
      const IntLanes v = LoadInt(tile + size_t{t} * head_dim + size_t{i} * 4);
      int16_t* out = work.values + size_t{i / kLanes} * panel_stride + size_t{t} * kLanes;
      StoreInt(out, BytePairs<0>(v));
      StoreInt(out + 2 * kLanes, BytePairs<2>(v));
    }
  }
  for (uint32_t t = 0; t < tokens; t += kLanes) {
    Store(work.value_scales + t, Load(values.scales + t));
  }
}

// Floats to codes of norm 32767. In place: a code lies at or before its float. RETURNS the scale.
inline float CodesOf(const float* values, uint32_t count, float norm, int16_t* codes) {
  const Lanes inverse = Broadcast(norm < kSmallestNorm ? 0.0f : kRowNorm / norm);
  for (uint32_t i = 0; i < count; i += kLanes)
    StoreInt16(codes + i, Mul(Load(values + i), inverse));
  return norm * (1.0f / kRowNorm);
}

// Stacked rows [first, end) of queries as codes.
inline void QueryCodes(const float* rows, uint32_t first, uint32_t end, uint32_t head_dim,
                       Int16Work& work) {
  for (uint32_t s = first; s < end; ++s) {
    const float* row = rows + size_t{s} * head_dim;
    Lanes squares = Zero();
    for (uint32_t i = 0; i < head_dim; i += kLanes) {
      squares = Fma(Load(row + i), Load(row + i), squares);
    }
    work.query_scales[s] = CodesOf(row, head_dim, __builtin_sqrtf(ReduceAdd(squares)),
                                   work.queries + size_t{s} * 2 * head_dim);
  }
}

template <typename Policy>
inline void PrepareQueries(const AttentionTask& task, const PageTiles& page, const PageView& view,
                           const float* key_means, const AttentionWork<float>& floats,
                           Int16Work& work) {
  if (ExpandsPages(task)) return;  // they are, in the frame of all pages
  float* rows = task.basis == nullptr ? floats.queries : floats.mapped;
  if (task.basis == nullptr) {
    RotateQueries<FloatRow>(task, page, view, rows);
  } else {
    MapQueries<Policy>(task, page, view, key_means, floats);
  }
  QueryCodes(rows, view.first, view.first + view.stacked, task.shape.head_dim, work);
}

// One row's scores of a page into weights times the values' scales, as codes. RETURNS the sum of
// the weights.
inline float WeighInt16(float* scores, SeenKeys seen, uint32_t padded, float constant,
                        bool slot_order, uint32_t row, SoftmaxState state, uint32_t head_dim,
                        Int16Work& work) {
  const float largest = LargestScore(scores, seen, padded, {nullptr, constant}, state.largest[row]);
  const Lanes shift = Broadcast(largest);
  Lanes sum = Zero();
  Lanes squares = Zero();
  for (uint32_t i = 0; i < padded; i += kLanes) {
    Lanes e = Exp2(Sub(Load(scores + i), shift));
    e = seen.Keep(e, i, Zero());  // keys that the row may not see weigh exactly nothing
    sum = Add(sum, e);
    if (slot_order) e = ToSlotOrder(e);
    e = Mul(e, Load(work.value_scales + i));
    squares = Fma(e, e, squares);
    Store(scores + i, e);
  }
  work.weight_scales[row] = CodesOf(scores, padded, __builtin_sqrtf(ReduceAdd(squares)),
                                    work.weights + size_t{row} * kBlockTokens);
  const float mass = ReduceAdd(sum);
  AddToRow(state, row, largest, mass, head_dim);
  return mass;
}

// Weights that are all so small that their squares vanish weigh nothing: below 1e-15 of the sum.
struct Int16Policy : FloatMapping {
  using Element = float;
  using Expansion = FloatExpansion;

  static void BeginExpanded(const AttentionTask& task, const AttentionWork<float>& floats) {
    const uint32_t group = task.shape.q_heads / task.shape.kv_heads;
    const uint32_t first = FirstInFrame(task);
    Int16Work work;
    CarveInt16(task, floats, work);
    RotateRows<FloatRow>(task, task.frame, first, task.rows, floats.queries);
    QueryCodes(floats.queries, first * group, task.rows * group, task.shape.head_dim, work);
  }

  static void Attend(const AttentionTask& task, const PageTiles& page, const PageTiles* next,
                     const AttentionWork<float>& floats, SoftmaxState state) {
    const PageView view = ViewOf(task, page, kLanes);
    if (view.stacked == 0) return;
    const uint32_t head_dim = task.shape.head_dim;
    const uint32_t group = task.shape.q_heads / task.shape.kv_heads;
    Int16Work work;
    CarveInt16(task, floats, work);
    const std::byte* key_bytes = page.keys + task.kv_head * page.key_stride;
    const std::byte* value_bytes = page.values + task.kv_head * page.value_stride;
    if (IsCoded(page.key_codec)) FetchTile(value_bytes, view.padded, head_dim, page.value_codec);
    const PageTile keys =
        ResolveTile(key_bytes, page.key_codec, true, head_dim, view.padded, floats.keys);
    PrepareQueries<Int16Policy>(task, page, view, keys.means, floats, work);
    ExpandKeys(keys, head_dim, view.padded, work);
    if (IsCoded(page.value_codec) && next != nullptr) {
      FetchTile(next->keys + task.kv_head * next->key_stride, next->tokens, head_dim,
                next->key_codec);
    }
    const PageTile values =
        ResolveTile(value_bytes, page.value_codec, false, head_dim, view.padded, floats.values);
    ExpandValues(values, head_dim, view.padded, work);
    MultiplyPanels({.a = work.queries + size_t{view.first} * 2 * head_dim,
                    .a_stride = size_t{2} * head_dim,
                    .row_scales = work.query_scales + view.first,
                    .panels = work.keys,
                    .column_scales = work.key_scales,
                    .pairs = head_dim / 2,
                    .c = floats.scores + size_t{view.first} * kBlockTokens,
                    .c_stride = kBlockTokens,
                    .add = false},
                   view.stacked, view.padded);
    for (uint32_t s = view.first; s < view.first + view.stacked; ++s) {
      floats.masses[s] =
          WeighInt16(floats.scores + size_t{s} * kBlockTokens, view.SeenAt(s / group), view.padded,
                     InBasis(task) ? floats.constants[s] : 0.0f, values.means != nullptr, s, state,
                     head_dim, work);
    }
    MultiplyPanels({.a = work.weights + size_t{view.first} * kBlockTokens,
                    .a_stride = kBlockTokens,
                    .row_scales = work.weight_scales + view.first,
                    .panels = work.values,
                    .column_scales = nullptr,
                    .pairs = view.padded / 2,
                    .c = state.values + size_t{view.first} * head_dim,
                    .c_stride = head_dim,
                    .add = true},
                   view.stacked, head_dim);
    AddMeans(values.means, floats.masses, view.first, view.stacked, state, head_dim);
  }
};

// With a basis few rows take exact products over pages as they lie.
inline bool MultipliesFloats(const AttentionTask& task) {
  return task.call_rows <= kFewRows && task.basis == nullptr;
}
void Int16Attend(const AttentionTask& task) noexcept {
  if (MultipliesFloats(task)) return Attend<FloatPolicy>(task);
  Attend<Int16Policy>(task);
}
void Int16AttendPart(const AttentionTask& task, uint32_t part, float* state) noexcept {
  if (MultipliesFloats(task)) return AttendPart<FloatPolicy>(task, part, state);
  AttendPart<Int16Policy>(task, part, state);
}
void Int16AttendParts(const AttentionTask& task, uint32_t first, uint32_t end,
                      float* into) noexcept {
  if (MultipliesFloats(task)) return AttendParts<FloatPolicy>(task, first, end, into);
  AttendParts<Int16Policy>(task, first, end, into);
}

}  // namespace
}  // namespace corpusd
