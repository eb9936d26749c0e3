// kernels/cpu/isa/coded_terms.h -- attention over a coded page in exact integer products of bytes:
// levels are multiplied as they are unpacked, a query is two signed bytes a dim (15 bits below its
// largest), a weight two unsigned bytes a token (16 bits below the page's largest). Over a Product
// that multiplies. Included after attention_body.h by translation units with AVX-512.
#pragma once

namespace corpusd {
namespace {

// Stacked rows that share a block of the terms: their high bytes, then their low bytes.
constexpr uint32_t kTermRows = 8;
constexpr uint32_t kTermDepth = 64;                    // weights are zero up to its multiple
constexpr float kQueryLimit = 127.0f * 128.0f;         // high * 128 + low, low in [-64, 63]
constexpr float kWeightLimit = 255.0f * 256 + 255.0f;  // high * 256 + low
constexpr float kSmallestTerm = 1e-30f;                // below, a row counts as zero

inline bool IsCodedPage(const PageTiles& page) {
  return IsCoded(page.key_codec) && IsCoded(page.value_codec);
}

// Arrays of a task, in the places that other queries and weights would take.
struct TermWork {
  int8_t* queries;   // [blocks of 8 rows][16][head_dim], in slot order
  uint8_t* weights;  // [blocks of 8 rows][16][kBlockTokens], in slot order
  float* query_scales;
  float* weight_scales;
  // The high bytes of a row; its low bytes are kTermRows rows behind.
  int8_t* QueryAt(uint32_t row, uint32_t head_dim) const {
    return queries + (size_t{row} + row / kTermRows * kTermRows) * head_dim;
  }
  uint8_t* WeightAt(uint32_t row) const {
    return weights + (size_t{row} + row / kTermRows * kTermRows) * kBlockTokens;
  }
};

template <typename Work>
inline TermWork CarveTerms(const AttentionTask& task, const Work& work) {
  const size_t stacked = StackedRoom(task);
  TermWork terms;
  terms.queries = reinterpret_cast<int8_t*>(work.queries);
  terms.weights = reinterpret_cast<uint8_t*>(work.weights);
  terms.query_scales = reinterpret_cast<float*>(work.weights) + stacked * kBlockTokens / 2;
  terms.weight_scales = terms.query_scales + stacked;
  return terms;
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
    int8_t* high = terms.QueryAt(s, head_dim);
    terms.query_scales[s] = SplitQuery(row, head_dim, high, high + size_t{kTermRows} * head_dim);
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

// Product: MappedQueries(task, page, view, work), the queries in the coordinates of the page's keys
// from the first row on that sees it; and
//   Score(terms, levels, stacked, head_dim, padded, scores):
//   scores[stacked][kBlockTokens] of the first `padded` keys, but for the keys' scales;
//   Gather(terms, values, masses, stacked, head_dim, padded, gathered):
//   adds the rows' weighted values and means of a page to gathered[stacked][head_dim].
// REQUIRES: task.basis; both codecs of the page coded.
template <typename Product, typename Work>
void AttendCodedPage(const AttentionTask& task, const PageTiles& page, const PageTiles* next,
                     const Work& work, SoftmaxState state) {
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
  const float* mapped = Product::MappedQueries(task, page, view, work);
  SplitQueries(task, mapped, view.stacked, keys.means, work.constants + first, terms);
  Product::Score(terms, keys.tile, view.stacked, head_dim, view.padded,
                 work.scores + size_t{first} * kBlockTokens);
  if (next != nullptr) {
    FetchTile(next->keys + task.kv_head * next->key_stride, next->tokens, head_dim,
              next->key_codec);
  }
  const PageTile values =
      ResolveTile(value_bytes, page.value_codec, false, head_dim, view.padded, work.values);
  for (uint32_t s = first; s < first + view.stacked; ++s) {
    const uint32_t r = s - first;
    work.masses[s] = WeighTerms(work.scores + size_t{s} * kBlockTokens, view.SeenAt(s / group),
                                view.padded, {keys.scales, work.constants[s]}, values.scales, s,
                                state, head_dim, &terms.weight_scales[r], terms.WeightAt(r));
  }
  Product::Gather(terms, values, work.masses + first, view.stacked, head_dim, view.padded,
                  state.values + size_t{first} * head_dim);
}

}  // namespace
}  // namespace corpusd
