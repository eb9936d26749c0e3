// kernels/cpu/isa/amx_coded.h -- attention over coded pages by AMX int8 tiles, of few rows and of
// many in one arithmetic: levels are multiplied as they are unpacked, a query is two signed bytes a
// dim (15 bits below its largest), a weight two unsigned bytes a token (16 bits below the page's
// largest), sums are exact integers. Eight stacked rows fill a tile: their high bytes above, their
// low bytes below. Included after amx_tiles.h by one translation unit.
#pragma once

namespace corpusd {
namespace {

constexpr uint32_t kTermRows = 8;
constexpr uint32_t kTermDepth = 64;                    // bytes of a tile's row
constexpr uint32_t kTermColumns = 64;                  // of four tiles side by side
constexpr float kQueryLimit = 127.0f * 128.0f;         // high * 128 + low, low in [-64, 63]
constexpr float kWeightLimit = 255.0f * 256 + 255.0f;  // high * 256 + low
constexpr float kSmallestTerm = 1e-30f;                // below, a row counts as zero

inline bool IsCodedPage(const PageTiles& page) {
  return IsCoded(page.key_codec) && IsCoded(page.value_codec);
}
// Rows that the arrays of queries hold.
inline size_t StackedRoom(const AttentionTask& task) {
  const size_t group = task.shape.q_heads / task.shape.kv_heads;
  return (AttentionRowsMax(task.shape) * group + 15) / 16 * 16;
}

// Rows [first, first + count) of work.turned, which is overwritten, times the basis in bf16.
void AmxMapRows(const AttentionTask& task, uint32_t first, uint32_t count,
                const AttentionWork<uint16_t>& work) {
  const uint32_t head_dim = task.shape.head_dim;
  float* rows = work.turned + size_t{first} * head_dim;
  auto* rounded = reinterpret_cast<uint16_t*>(rows);  // lies at or before its float
  for (size_t i = 0; i < size_t{count} * head_dim; i += kLanes) {
    StoreBf16(rounded + i, Load(rows + i));
  }
  for (uint32_t i = 0; i < head_dim; i += 2 * kTileSide) {
    const auto* column = reinterpret_cast<const std::byte*>(work.matrix + size_t{i} * 2);
    const TileFactors factors{.a = reinterpret_cast<const std::byte*>(rounded),
                              .a_stride = size_t{head_dim} * 2,
                              .b0 = column,
                              .b1 = column + kTileSide * 4,
                              .b_stride = size_t{head_dim} * 4,
                              .depth = head_dim};
    TileGemm(factors, count, 2 * kTileSide, work.mapped + size_t{first} * head_dim + i, head_dim,
             false);
  }
}

// Whether the queries of all pages of a part are mapped at once, page after page: so few rows that
// a tile holds those of several pages.
inline bool MapsWholePart(const AttentionTask& task, uint32_t first, uint32_t end) {
  const size_t stacked = size_t{task.rows} * (task.shape.q_heads / task.shape.kv_heads);
  if ((end - first) * stacked > StackedRoom(task)) return false;
  for (uint32_t i = first; i < end; ++i) {
    if (!IsCodedPage(task.pages[i])) return false;
  }
  return true;
}

// The basis in bf16, [head_dim / 2][head_dim][2], and the queries of a part of few rows.
void AmxBeginPart(const AttentionTask& task, uint32_t first, uint32_t end,
                  const AttentionWork<uint16_t>& work) {
  if (task.basis == nullptr) return;
  const uint32_t head_dim = task.shape.head_dim;
  const float* query = task.basis->key.query;
  for (uint32_t k = 0; k < head_dim; k += 2) {
    for (uint32_t j = 0; j < head_dim; j += kLanes) {
      const float* even = query + size_t{k} * head_dim + j;
      _mm512_storeu_si512(work.matrix + size_t{k} * head_dim + size_t{j} * 2,
                          PairsOf(Load(even), Load(even + head_dim)));
    }
  }
  if (!MapsWholePart(task, first, end)) return;
  const uint32_t stacked = task.rows * (task.shape.q_heads / task.shape.kv_heads);
  for (uint32_t i = first; i < end; ++i) {
    const PageView view = ViewOf(task, task.pages[i], kLanes);
    if (view.stacked == 0) continue;
    RotateQueries<FloatRow>(task, task.pages[i], view,
                            work.turned + size_t{i - first} * stacked * head_dim);
  }
  AmxMapRows(task, 0, (end - first) * stacked, work);
}

// The page's queries in its coordinates, from the first row on that sees it.
inline const float* AmxMappedQueries(const AttentionTask& task, const PageTiles& page,
                                     const PageView& view, const AttentionWork<uint16_t>& work) {
  const auto index = static_cast<uint32_t>(&page - task.pages);
  const uint32_t first = index / kPartPages * kPartPages;
  const uint32_t head_dim = task.shape.head_dim;
  size_t row = view.first;
  if (MapsWholePart(task, first, MinU32(first + kPartPages, task.page_count))) {
    const size_t stacked = size_t{task.rows} * (task.shape.q_heads / task.shape.kv_heads);
    row += (index - first) * stacked;
  } else {
    RotateQueries<FloatRow>(task, page, view, work.turned);
    AmxMapRows(task, view.first, view.stacked, work);
  }
  return work.mapped + row * head_dim;
}

// Arrays of a task, in the places that bf16 queries and weights would take.
struct TermWork {
  int8_t* queries;   // [blocks of 8 rows][16][head_dim], in slot order
  uint8_t* weights;  // [blocks of 8 rows][16][kBlockTokens], in slot order
  float* query_scales;
  float* weight_scales;
};

inline TermWork CarveTerms(const AttentionTask& task, const AttentionWork<uint16_t>& work) {
  const size_t stacked = StackedRoom(task);
  TermWork terms;
  terms.queries = reinterpret_cast<int8_t*>(work.queries);
  terms.weights = reinterpret_cast<uint8_t*>(work.weights);
  terms.query_scales = reinterpret_cast<float*>(work.weights) + stacked * kBlockTokens / 2;
  terms.weight_scales = terms.query_scales + stacked;
  return terms;
}

// c[16][64] = a[16][64 * chunks] * b, b [16 * chunks][columns][4] with b_stride bytes a row.
template <bool kUnsigned>
inline void TermTiles(const void* a, size_t a_stride, const std::byte* b, size_t b_stride,
                      uint32_t chunks, int32_t* c) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  const auto* rows = static_cast<const std::byte*>(a);
  for (uint32_t k = 0; k < chunks; ++k) {
    const std::byte* columns = b + size_t{k} * kTileSide * b_stride;
    _tile_loadd(4, rows + size_t{k} * kTermDepth, a_stride);
    _tile_loadd(5, columns, b_stride);
    _tile_loadd(6, columns + 64, b_stride);
    if constexpr (kUnsigned) {
      _tile_dpbusd(0, 4, 5);
      _tile_dpbusd(1, 4, 6);
    } else {
      _tile_dpbssd(0, 4, 5);
      _tile_dpbssd(1, 4, 6);
    }
    _tile_loadd(7, columns + 128, b_stride);
    _tile_loadd(5, columns + 192, b_stride);
    if constexpr (kUnsigned) {
      _tile_dpbusd(2, 4, 7);
      _tile_dpbusd(3, 4, 5);
    } else {
      _tile_dpbssd(2, 4, 7);
      _tile_dpbssd(3, 4, 5);
    }
  }
  constexpr size_t kStride = kTermColumns * 4;
  _tile_stored(0, c, kStride);
  _tile_stored(1, c + 16, kStride);
  _tile_stored(2, c + 32, kStride);
  _tile_stored(3, c + 48, kStride);
}

// high * 2^kShift + low of row r of a block, 16 columns from i on.
template <int kShift>
inline Lanes JoinTerms(const int32_t* c, uint32_t r, uint32_t i) {
  const __m512i high = _mm512_load_si512(c + r * kTermColumns + i);
  const __m512i low = _mm512_load_si512(c + (kTermRows + r) * kTermColumns + i);
  return {_mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32(high, kShift), low))};
}

// One query as two bytes a dim, in slot order. RETURNS its scale.
inline float SplitQuery(const float* row, uint32_t head_dim, int8_t* high, int8_t* low) {
  Lanes top = Zero();
  for (uint32_t i = 0; i < head_dim; i += kLanes) top = Max(top, Absolute(Load(row + i)));
  const float largest = ReduceMax(top);
  const Lanes inverse = Broadcast(largest < kSmallestTerm ? 0.0f : kQueryLimit / largest);
  for (uint32_t i = 0; i < head_dim; i += kLanes) {
    const __m512i code = _mm512_cvtps_epi32(ToSlotOrder(Mul(Load(row + i), inverse)).v);
    const __m512i upper = _mm512_srai_epi32(_mm512_add_epi32(code, _mm512_set1_epi32(64)), 7);
    const __m512i lower = _mm512_sub_epi32(code, _mm512_slli_epi32(upper, 7));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(high + i), _mm512_cvtepi32_epi8(upper));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(low + i), _mm512_cvtepi32_epi8(lower));
  }
  return largest * (1.0f / kQueryLimit);
}

// Weights times the values' scales as two bytes a token, zeros up to a multiple of kTermDepth.
// RETURNS their scale.
inline float SplitWeights(const float* row, uint32_t padded, float largest, uint8_t* high,
                          uint8_t* low) {
  const Lanes inverse = Broadcast(largest < kSmallestTerm ? 0.0f : kWeightLimit / largest);
  for (uint32_t i = 0; i < padded; i += kLanes) {
    const __m512i code = _mm512_cvtps_epi32(Mul(Load(row + i), inverse).v);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(high + i),
                     _mm512_cvtepi32_epi8(_mm512_srli_epi32(code, 8)));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(low + i), _mm512_cvtepi32_epi8(code));
  }
  for (uint32_t i = padded; i % kTermDepth != 0; i += kLanes) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(high + i), _mm_setzero_si128());
    _mm_storeu_si128(reinterpret_cast<__m128i*>(low + i), _mm_setzero_si128());
  }
  return largest * (1.0f / kWeightLimit);
}

// Constants and terms of the page's queries; mapped: row 0 is the first that sees the page.
inline void SplitQueries(const AttentionTask& task, const float* mapped, uint32_t stacked,
                         const float* key_means, float* constants, const TermWork& terms) {
  const uint32_t head_dim = task.shape.head_dim;
  for (uint32_t s = 0; s < stacked; ++s) {
    const float* row = mapped + size_t{s} * head_dim;
    constants[s] = QueryConstant(row, key_means, head_dim, task.basis->key);
    int8_t* high = terms.queries + (size_t{s / kTermRows} * kTileSide + s % kTermRows) * head_dim;
    terms.query_scales[s] = SplitQuery(row, head_dim, high, high + size_t{kTermRows} * head_dim);
  }
}

// scores[stacked][kBlockTokens] of the first `padded` keys, but for the keys' scales.
inline void ScoreTerms(const TermWork& terms, const std::byte* levels, uint32_t stacked,
                       uint32_t head_dim, uint32_t padded, float* scores) {
  alignas(64) int32_t c[kTileSide * kTermColumns];
  for (uint32_t first = 0; first < stacked; first += kTermRows) {
    const int8_t* rows = terms.queries + size_t{first} * 2 * head_dim;
    for (uint32_t t = 0; t < padded; t += kTermColumns) {
      TermTiles<false>(rows, head_dim, levels + size_t{t} * 4, kBlockTokens * 4,
                       head_dim / kTermDepth, c);
      for (uint32_t r = 0; r < MinU32(kTermRows, stacked - first); ++r) {
        const Lanes scale = Broadcast(terms.query_scales[first + r]);
        float* row = scores + size_t{first + r} * kBlockTokens + t;
        for (uint32_t i = 0; i < kTermColumns; i += kLanes) {
          Store(row + i, Mul(JoinTerms<7>(c, r, i), scale));
        }
      }
    }
  }
}

// One row's scores of a page into weights, as terms. RETURNS the sum of the weights.
inline float WeighTerms(float* scores, SeenKeys seen, uint32_t padded, ScoreMap map,
                        const float* value_scales, uint32_t row, SoftmaxState state,
                        uint32_t head_dim, float* scale, uint8_t* high) {
  const float largest = LargestScore(scores, seen, padded, map, state.largest[row]);
  const Lanes shift = Broadcast(largest);
  Lanes sum = Zero();
  Lanes top = Zero();
  for (uint32_t i = 0; i < padded; i += kLanes) {
    Lanes e = Exp2(Sub(Load(scores + i), shift));
    e = seen.Keep(e, i, Zero());  // keys that the row may not see weigh exactly nothing
    sum = Add(sum, e);
    e = Mul(ToSlotOrder(e), Load(value_scales + i));
    top = Max(top, e);
    Store(scores + i, e);
  }
  *scale = SplitWeights(scores, padded, ReduceMax(top), high, high + kTermRows * kBlockTokens);
  const float mass = ReduceAdd(sum);
  AddToRow(state, row, largest, mass, head_dim);
  return mass;
}

// Adds the rows' weighted values and means of a page to what they have gathered.
inline void AddTerms(const TermWork& terms, const PageTile& values, const float* masses,
                     uint32_t stacked, uint32_t head_dim, uint32_t padded, float* gathered) {
  alignas(64) int32_t c[kTileSide * kTermColumns];
  const uint32_t chunks = (padded + kTermDepth - 1) / kTermDepth;
  for (uint32_t first = 0; first < stacked; first += kTermRows) {
    const uint8_t* rows = terms.weights + size_t{first} * 2 * kBlockTokens;
    for (uint32_t j = 0; j < head_dim; j += kTermColumns) {
      TermTiles<true>(rows, kBlockTokens, values.tile + size_t{j} * 4, size_t{head_dim} * 4, chunks,
                      c);
      for (uint32_t r = 0; r < MinU32(kTermRows, stacked - first); ++r) {
        const Lanes scale = Broadcast(terms.weight_scales[first + r]);
        const Lanes mass = Broadcast(masses[first + r]);
        float* row = gathered + size_t{first + r} * head_dim + j;
        for (uint32_t i = 0; i < kTermColumns; i += kLanes) {
          const Lanes before = Fma(mass, Load(values.means + j + i), Load(row + i));
          Store(row + i, Fma(JoinTerms<8>(c, r, i), scale, before));
        }
      }
    }
  }
}

// REQUIRES: both codecs of the page coded.
inline void AmxCodedPage(const AttentionTask& task, const PageTiles& page, const PageTiles* next,
                         const AttentionWork<uint16_t>& work, SoftmaxState state) {
  const PageView view = ViewOf(task, page, kLanes);
  if (view.stacked == 0) return;
  const uint32_t head_dim = task.shape.head_dim;
  const uint32_t group = task.shape.q_heads / task.shape.kv_heads;
  const uint32_t first = view.first;
  const TermWork terms = CarveTerms(task, work);
  const std::byte* key_bytes = page.keys + task.kv_head * page.key_stride;
  const std::byte* value_bytes = page.values + task.kv_head * page.value_stride;
  FetchTile(value_bytes, view.padded, head_dim, page.value_codec);
  const PageTile keys =
      ResolveTile(key_bytes, page.key_codec, true, head_dim, view.padded, work.keys);
  const float* mapped = AmxMappedQueries(task, page, view, work);
  SplitQueries(task, mapped, view.stacked, keys.means, work.constants + first, terms);
  ScoreTerms(terms, keys.tile, view.stacked, head_dim, view.padded,
             work.scores + size_t{first} * kBlockTokens);
  if (next != nullptr) {
    FetchTile(next->keys + task.kv_head * next->key_stride, next->tokens, head_dim,
              next->key_codec);
  }
  const PageTile values =
      ResolveTile(value_bytes, page.value_codec, false, head_dim, view.padded, work.values);
  for (uint32_t s = first; s < first + view.stacked; ++s) {
    const uint32_t r = s - first;
    uint8_t* high =
        terms.weights + (size_t{r / kTermRows} * kTileSide + r % kTermRows) * kBlockTokens;
    work.masses[s] = WeighTerms(work.scores + size_t{s} * kBlockTokens, view.SeenAt(s / group),
                                view.padded, {keys.scales, work.constants[s]}, values.scales, s,
                                state, head_dim, &terms.weight_scales[r], high);
  }
  AddTerms(terms, values, work.masses + first, view.stacked, head_dim, view.padded,
           state.values + size_t{first} * head_dim);
}

}  // namespace
}  // namespace corpusd
