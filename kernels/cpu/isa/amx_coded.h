// kernels/cpu/isa/amx_coded.h -- attention of few rows over a coded page by AMX int8 tiles, four
// stacked rows at a time in the terms of coded_terms.h: keys are the first factor, so that a tile
// is 16 tokens and not 16 rows of which a decode has few; values are the second. Queries are
// brought into the basis by bf16 tiles, those of several pages at once where rows are few. Included
// after amx_tiles.h, amx_levels.h and coded_terms.h by one translation unit.
#pragma once

namespace corpusd {
namespace {

// Scores: sums in tile 0, query terms in 2, keys in 3 and 4. Values: sums in 6 and 7, weight terms
// in 5, levels in 3 and 4. Tiles 1, 3 and 4 are whole, for queries. Constant data: see kWholeTiles.
constexpr TileConfig kTermTiles = {.row_bytes = {32, 64, 32, 64, 64, 64, 64, 64},
                                   .rows = {16, 16, 16, 16, 16, 8, 8, 8}};
// Stacked rows that are multiplied at once: their high bytes, then their low bytes.
constexpr uint32_t kPassRows = 4;
constexpr uint32_t kPassTerms = 2 * kPassRows;

// All rows' blocks of 16 times a basis of 64 dims, whose tiles are read once. All tiles are whole.
inline void MapBlocks(const uint16_t* rows, uint32_t first, uint32_t end, const std::byte* pairs,
                      float* out) {
  for (uint32_t i = 0; i < kChunk; i += kTileSide, out += kTileSide) {
    _tile_loadd(4, pairs + size_t{i} * 4, kChunk * 4);
    _tile_loadd(5, pairs + (size_t{kTileDepth} / 2 * kChunk + i) * 4, kChunk * 4);
    for (uint32_t r = first; r < end; r += kTileSide) {
      const uint16_t* a = rows + size_t{r} * kChunk;
      _tile_zero(1);
      _tile_loadd(2, a, kChunk * 2);
      _tile_dpbf16ps(1, 2, 4);
      _tile_loadd(3, a + kTileDepth, kChunk * 2);
      _tile_dpbf16ps(1, 3, 5);
      _tile_stored(1, out + size_t{r} * kChunk, kChunk * 4);
    }
  }
}

// Rows [first, first + count) of work.turned, which is overwritten, times the basis in bf16; those
// of the same 16 get anything. By tiles 1, 3 and 4, and of more than a pass by whole ones.
void AmxMapRows(const AttentionTask& task, uint32_t first, uint32_t count,
                const AttentionWork<uint16_t>& work) {
  const uint32_t head_dim = task.shape.head_dim;
  auto* rounded = reinterpret_cast<uint16_t*>(work.turned);  // lies at or before its float
  for (size_t i = size_t{first} * head_dim; i < size_t{first + count} * head_dim; i += kLanes) {
    StoreBf16(rounded + i, Load(work.turned + i));
  }
  __atomic_signal_fence(__ATOMIC_SEQ_CST);  // see ScoreTiles
  const auto* pairs = reinterpret_cast<const std::byte*>(task.basis->key.query_pairs);
  if (head_dim == kChunk && task.rows * (task.shape.q_heads / task.shape.kv_heads) > kPassRows) {
    MapBlocks(rounded, first / kTileSide * kTileSide, first + count, pairs, work.mapped);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    return;
  }
  for (uint32_t r = first / kTileSide * kTileSide; r < first + count; r += kTileSide) {
    for (uint32_t i = 0; i < head_dim; i += kTileSide) {
      _tile_zero(1);
      for (uint32_t k = 0; k < head_dim; k += kTileDepth) {
        _tile_loadd(3, rounded + size_t{r} * head_dim + k, size_t{head_dim} * 2);
        _tile_loadd(4, pairs + (size_t{k} / 2 * head_dim + i) * 4, size_t{head_dim} * 4);
        _tile_dpbf16ps(1, 3, 4);
      }
      _tile_stored(1, work.mapped + size_t{r} * head_dim + i, size_t{head_dim} * 4);
    }
  }
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

// Whether a part of few rows has coded pages alone.
inline bool IsCodedPart(const AttentionTask& task, uint32_t first, uint32_t end) {
  if (task.basis == nullptr || task.call_rows > kFewRows) return false;
  for (uint32_t i = first; i < end; ++i) {
    if (!IsCodedPage(task.pages[i])) return false;
  }
  return true;
}
// Whether the queries of all its pages are mapped at once, page after page: so few rows that a tile
// holds those of several pages.
inline bool MapsWholePart(const AttentionTask& task, uint32_t first, uint32_t end) {
  const size_t stacked = size_t{task.rows} * (task.shape.q_heads / task.shape.kv_heads);
  return (end - first) * stacked <= StackedRoom(task) && IsCodedPart(task, first, end);
}

// Sets up the tiles for a part, and the queries of few rows.
void AmxBeginPart(const AttentionTask& task, uint32_t first, uint32_t end,
                  const AttentionWork<uint16_t>& work) {
  const uint32_t stacked = task.rows * (task.shape.q_heads / task.shape.kv_heads);
  const bool coded = IsCodedPart(task, first, end);
  _tile_loadconfig(coded && stacked <= kPassRows ? &kTermTiles : &kWholeTiles);
  if (!coded || !MapsWholePart(task, first, end)) return;
  const uint32_t head_dim = task.shape.head_dim;
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
                                     const PageView& view, bool mapped_whole,
                                     const AttentionWork<uint16_t>& work) {
  const auto index = static_cast<uint32_t>(&page - task.pages);
  size_t row = view.first;
  if (mapped_whole) {
    const size_t stacked = size_t{task.rows} * (task.shape.q_heads / task.shape.kv_heads);
    row += index % kPartPages * stacked;
  } else {
    RotateQueries<FloatRow>(task, page, view, work.turned);
    AmxMapRows(task, view.first, view.stacked, work);
  }
  return work.mapped + row * task.shape.head_dim;
}

// v[j] dword r of each lane <-> v[r] dword j.
inline void TurnDwords(__m512i (&v)[4]) {
  const __m512i a = _mm512_unpacklo_epi32(v[0], v[1]);
  const __m512i b = _mm512_unpackhi_epi32(v[0], v[1]);
  const __m512i c = _mm512_unpacklo_epi32(v[2], v[3]);
  const __m512i d = _mm512_unpackhi_epi32(v[2], v[3]);
  v[0] = _mm512_unpacklo_epi64(a, c);
  v[1] = _mm512_unpackhi_epi64(a, c);
  v[2] = _mm512_unpacklo_epi64(b, d);
  v[3] = _mm512_unpackhi_epi64(b, d);
}

// Queries of a pass, mapped[rows][head_dim], as the second factor of keys:
// out[head_dim / 64][16 quads, [t][f]][8 terms][4]. bytes: room for 8 * head_dim.
inline void PackQueries(const float* mapped, uint32_t rows, uint32_t head_dim, int8_t* bytes,
                        std::byte* out, float* scales) {
  const auto terms_of = [&](uint32_t term) { return bytes + size_t{term} * head_dim; };
  for (uint32_t r = 0; r < rows; ++r) {
    scales[r] =
        SplitQuery(mapped + size_t{r} * head_dim, head_dim, terms_of(r), terms_of(kPassRows + r));
  }
  const __m512i lower = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
  const __m512i upper = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
  for (uint32_t i = 0; i < head_dim; i += kChunk) {
    __m512i terms[2][kPassRows];
#pragma GCC unroll 2
    for (uint32_t term = 0; term < 2; ++term) {
#pragma GCC unroll 4
      for (uint32_t r = 0; r < kPassRows; ++r) {
        terms[term][r] = r < rows ? _mm512_loadu_si512(terms_of(term * kPassRows + r) + i)
                                  : _mm512_setzero_si512();
      }
      TurnDwords(terms[term]);  // [t]: lane f has the rows' quads t
    }
#pragma GCC unroll 4
    for (uint32_t t = 0; t < 4; ++t, out += 128) {
      _mm512_store_si512(out, _mm512_permutex2var_epi64(terms[0][t], lower, terms[1][t]));
      _mm512_store_si512(out + 64, _mm512_permutex2var_epi64(terms[0][t], upper, terms[1][t]));
    }
  }
}

// c[128][8] = the keys' rows times the query terms of a pass.
inline void ScoreTiles(const std::byte* keys, const std::byte* queries, uint32_t head_dim,
                       int32_t* c, ReadAhead& ahead) {
  // The tile loads of some compilers do not say that they read memory.
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
  constexpr size_t kChunkBytes = size_t{kBlockTokens} * kChunk;
  _tile_loadd(2, queries, 32);
  for (uint32_t i = 0; i < kBlockTokens / kTileSide; ++i, keys += 1024, c += 128) {
    _tile_zero(0);
    for (uint32_t k = 0; k < head_dim / kChunk; ++k) {
      if (head_dim > kChunk) _tile_loadd(2, queries + size_t{k} * 512, 32);
      _tile_loadd(3, keys + k * kChunkBytes, 64);
      _tile_dpbssd(0, 3, 2);
    }
    _tile_stored(0, c, 32);
    ahead.Take(2);
  }
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

// Slots [first, first + 16) that a row may see.
inline __mmask16 SeenSlots(SeenKeys seen, uint32_t first) {
  const __m512i token =
      _mm512_add_epi32(_mm512_setr_epi32(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15),
                       _mm512_set1_epi32(static_cast<int>(first)));
  return _mm512_cmplt_epu32_mask(token, _mm512_set1_epi32(static_cast<int>(seen.visible))) &
         _mm512_cmpge_epu32_mask(token, _mm512_set1_epi32(static_cast<int>(seen.hidden)));
}
inline Lanes KeepSlots(__mmask16 mask, Lanes v, Lanes other) {
  return {_mm512_mask_mov_ps(other.v, mask, v.v)};
}

// The rows of a pass.
struct PassRows {
  SeenKeys seen[kPassRows];
  const float* query_scales;
  const float* constants;
  float* scores;  // [rows][kBlockTokens], in slot order
};

// Scores out of sums, and each row's largest. kMasked: some row does not see the whole page.
template <uint32_t kRows, bool kMasked>
inline void FinishScores(const int32_t* c, const float* key_scales, const PassRows& pass,
                         float* largest, ReadAhead& ahead) {
  Lanes top[kRows];
  Lanes scale[kRows];
  Lanes constant[kRows];
#pragma GCC unroll 4
  for (uint32_t r = 0; r < kRows; ++r) {
    top[r] = Broadcast(kMinusInfinity);
    scale[r] = Broadcast(pass.query_scales[r]);
    constant[r] = Broadcast(pass.constants[r]);
  }
  for (uint32_t t = 0; t < kBlockTokens; t += kLanes, c += kLanes * kPassTerms) {
    __m512i sums[4];
#pragma GCC unroll 4
    for (uint32_t j = 0; j < 4; ++j) {
      const __m512i a = _mm512_load_si512(c + j * 32);
      const __m512i b = _mm512_load_si512(c + j * 32 + 16);
      const __m512i high = _mm512_shuffle_i32x4(a, b, 0x88);
      sums[j] = _mm512_add_epi32(_mm512_slli_epi32(high, 7), _mm512_shuffle_i32x4(a, b, 0xdd));
    }
    TurnDwords(sums);
    const Lanes key_scale = Load(key_scales + t);
#pragma GCC unroll 4
    for (uint32_t r = 0; r < kRows; ++r) {
      const Lanes dot = Mul({_mm512_cvtepi32_ps(sums[r])}, scale[r]);
      Lanes s = Fma(dot, key_scale, constant[r]);
      if (kMasked) s = KeepSlots(SeenSlots(pass.seen[r], t), s, Broadcast(kMinusInfinity));
      Store(pass.scores + r * kBlockTokens + t, s);
      top[r] = Max(top[r], s);
    }
    ahead.Take(3);
  }
#pragma GCC unroll 4
  for (uint32_t r = 0; r < kRows; ++r) largest[r] = ReduceMax(top[r]);
}

// 64 weights, of four groups, as two bytes each: lane t has their quads t.
inline void PackWeights(const float* weights, Lanes inverse, std::byte* high, std::byte* low) {
  __m512i code[4];
#pragma GCC unroll 4
  for (uint32_t i = 0; i < 4; ++i) {
    code[i] = _mm512_cvtps_epi32(Mul(Load(weights + i * kLanes), inverse).v);
  }
  const __m512i a = _mm512_packus_epi32(code[0], code[1]);
  const __m512i b = _mm512_packus_epi32(code[2], code[3]);
  const __m512i byte = _mm512_set1_epi16(255);
  _mm512_store_si512(high, _mm512_packus_epi16(_mm512_srli_epi16(a, 8), _mm512_srli_epi16(b, 8)));
  _mm512_store_si512(low,
                     _mm512_packus_epi16(_mm512_and_si512(a, byte), _mm512_and_si512(b, byte)));
}

// One row's scores into weights as terms, at `terms`, those that it does not see into zeros.
// RETURNS the sum of the weights.
template <bool kMasked>
inline float WeighScores(float* row, SeenKeys seen, float largest, const float* value_scales,
                         std::byte* terms, float* scale, ReadAhead& ahead) {
  const Lanes shift = Broadcast(largest);
  Lanes sum = Zero();
  Lanes top = Zero();
#pragma GCC unroll 8
  for (uint32_t t = 0; t < kBlockTokens; t += kLanes) {
    Lanes e = Exp2(Sub(Load(row + t), shift));
    // Keys that the row may not see weigh exactly nothing.
    if (kMasked) e = KeepSlots(SeenSlots(seen, t), e, Zero());
    sum = Add(sum, e);
    e = Mul(e, Load(value_scales + t));
    top = Max(top, e);
    Store(row + t, e);
  }
  ahead.Take(4);
  const float peak = ReduceMax(top);
  const Lanes inverse = Broadcast(peak < kSmallestTerm ? 0.0f : kWeightLimit / peak);
  ahead.Take(4);
  for (uint32_t k = 0; k < 2; ++k) {
    std::byte* high = terms + k * kChunk;
    PackWeights(row + k * kChunk, inverse, high, high + kPassRows * kBlockTokens);
  }
  *scale = peak * (1.0f / kWeightLimit);
  return ReduceAdd(sum);
}

// The same for the rows of a pass. Each row's sum of weights goes to masses.
template <uint32_t kRows, bool kMasked>
inline void WeighPass(const PassRows& pass, const float* largest, const float* value_scales,
                      std::byte* terms, float* scales, float* masses, ReadAhead& ahead) {
#pragma GCC unroll 4
  for (uint32_t r = 0; r < kRows; ++r) {
    masses[r] = WeighScores<kMasked>(pass.scores + r * kBlockTokens, pass.seen[r], largest[r],
                                     value_scales, terms + r * kBlockTokens, &scales[r], ahead);
  }
}

// c[8][64 columns] = the weight terms of a pass times 64 dims of the values.
inline void ValueTiles(const std::byte* weights, const std::byte* values, int32_t* c,
                       ReadAhead& ahead) {
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
  constexpr size_t kBlockBytes = size_t{kBlockTokens} * kTileSide;
  for (uint32_t j = 0; j < kChunk; j += 2 * kTileSide, values += 2 * kBlockBytes) {
    _tile_zero(6);
    _tile_zero(7);
    for (uint32_t k = 0; k < 2; ++k) {
      _tile_loadd(5, weights + size_t{k} * kChunk, kBlockTokens);
      _tile_loadd(3, values + size_t{k} * 1024, 64);
      _tile_dpbusd(6, 5, 3);
      _tile_loadd(4, values + kBlockBytes + size_t{k} * 1024, 64);
      _tile_dpbusd(7, 5, 4);
    }
    _tile_stored(6, c + j, kChunk * 4);
    _tile_stored(7, c + j + kTileSide, kChunk * 4);
    ahead.Take(6);
  }
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

// Adds 64 dims of a row's weighted values and means of a page to what it has gathered; c: of its
// high terms.
inline void GatherRow(const int32_t* c, const float* means, float scale, float mass,
                      float* gathered) {
  const __m512i first = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29);
  const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(2));
  __m512i sums[4];
#pragma GCC unroll 4
  for (uint32_t b = 0; b < 4; ++b) {
    const __m512i high = _mm512_load_si512(c + b * kLanes);
    const __m512i low = _mm512_load_si512(c + kPassRows * kChunk + b * kLanes);
    sums[b] = _mm512_add_epi32(_mm512_slli_epi32(high, 8), low);
  }
  __m512i turned[4];
#pragma GCC unroll 2
  for (uint32_t f = 0; f < 2; ++f) {
    const __m512i index = f == 0 ? first : second;
    const __m512i a = _mm512_permutex2var_epi32(sums[0], index, sums[1]);
    const __m512i b = _mm512_permutex2var_epi32(sums[2], index, sums[3]);
    turned[2 * f] = _mm512_shuffle_i64x2(a, b, 0x44);
    turned[2 * f + 1] = _mm512_shuffle_i64x2(a, b, 0xee);
  }
#pragma GCC unroll 4
  for (uint32_t f = 0; f < 4; ++f) {
    float* row = gathered + f * kLanes;
    const Lanes before = Fma(Broadcast(mass), Load(means + f * kLanes), Load(row));
    Store(row, Fma({_mm512_cvtepi32_ps(turned[f])}, Broadcast(scale), before));
  }
}

// Calls body(first, width) for passes of up to four stacked rows, of which width.kValue.
template <typename Body>
inline void ForEachPass(uint32_t stacked, const Body& body) {
  for (uint32_t s = 0; s < stacked; s += kPassRows) {
    const uint32_t rows = MinU32(kPassRows, stacked - s);
    if (rows == 1) body(s, BitWidth<1>{});
    if (rows == 2) body(s, BitWidth<2>{});
    if (rows == 3) body(s, BitWidth<3>{});
    if (rows == 4) body(s, BitWidth<4>{});
  }
}

// The next page's tiles, to be asked for while this one is worked on.
inline ReadAhead AheadOf(const AttentionTask& task, const PageTiles* next) {
  if (next == nullptr || !IsCodedPage(*next)) return {nullptr, 0, nullptr, 0};
  const auto bytes = [&](KvCodec codec) -> uint32_t {
    return CodedTileBytes(static_cast<int>(CodeBits(codec)), static_cast<int>(task.shape.head_dim));
  };
  return {next->keys + task.kv_head * next->key_stride, bytes(next->key_codec),
          next->values + task.kv_head * next->value_stride, bytes(next->value_codec)};
}

// A coded page, all of its slots. REQUIRES: task.basis; both codecs of the page coded.
// mapped_whole: with its part; tiles are those of terms.
void AmxAttendCoded(const AttentionTask& task, const PageTiles& page, const PageTiles* next,
                    bool mapped_whole, const AttentionWork<uint16_t>& work, SoftmaxState state) {
  const PageView view = ViewOf(task, page, kLanes);
  if (view.stacked == 0) return;
  const uint32_t head_dim = task.shape.head_dim;
  const uint32_t group = task.shape.q_heads / task.shape.kv_heads;
  const std::byte* key_bytes = page.keys + task.kv_head * page.key_stride;
  const std::byte* value_bytes = page.values + task.kv_head * page.value_stride;
  const uint32_t key_bits = CodeBits(page.key_codec);
  const uint32_t value_bits = CodeBits(page.value_codec);
  const float* mapped = AmxMappedQueries(task, page, view, mapped_whole, work);
  ReadAhead ahead = AheadOf(task, next);
  std::byte* const values = view.stacked <= kPassRows ? work.keys.levels : work.expanded;
  auto* const terms = reinterpret_cast<std::byte*>(work.queries);  // of one pass
  auto* const weights = reinterpret_cast<std::byte*>(work.weights);
  alignas(64) int32_t sums[kBlockTokens * kPassTerms];
  UnpackRowsOf(key_bits, true, work.keys.levels, key_bytes, head_dim, ahead);
  UnpackScales(work.keys.scales, work.keys.means, key_bytes, key_bits, false, head_dim);
  ForEachPass(view.stacked, [&](uint32_t s, auto width) {
    constexpr uint32_t kRows = decltype(width)::kValue;
    const uint32_t first = view.first + s;
    float query_scales[kRows], constants[kRows], largest[kRows], scales[kRows], masses[kRows];
    PassRows pass{.seen = {},
                  .query_scales = query_scales,
                  .constants = constants,
                  .scores = work.scores + size_t{first} * kBlockTokens};
    bool whole = true;
    for (uint32_t r = 0; r < kRows; ++r) {
      pass.seen[r] = view.SeenAt((first + r) / group);
      whole = whole && pass.seen[r].hidden == 0 && pass.seen[r].visible == kBlockTokens;
      constants[r] = QueryConstant(mapped + size_t{s + r} * head_dim, work.keys.means, head_dim,
                                   task.basis->key);
    }
    PackQueries(mapped + size_t{s} * head_dim, kRows, head_dim, reinterpret_cast<int8_t*>(weights),
                terms, query_scales);
    ScoreTiles(work.keys.levels, terms, head_dim, sums, ahead);
    if (s == 0) {
      UnpackRowsOf(value_bits, false, values, value_bytes, head_dim, ahead);
      UnpackScales(work.values.scales, work.values.means, value_bytes, value_bits, false, head_dim);
    }
    const auto weigh = [&](auto masked) {
      constexpr bool kMasked = decltype(masked)::kValue != 0;
      FinishScores<kRows, kMasked>(sums, work.keys.scales, pass, largest, ahead);
      for (uint32_t r = 0; r < kRows; ++r) {
        const float before = state.largest[first + r];
        largest[r] = largest[r] > before ? largest[r] : before;
      }
      WeighPass<kRows, kMasked>(pass, largest, work.values.scales, weights, scales, masses, ahead);
    };
    whole ? weigh(BitWidth<0>{}) : weigh(BitWidth<1>{});
    for (uint32_t r = 0; r < kRows; ++r) {
      AddToRow(state, first + r, largest[r], masses[r], head_dim);
    }
    for (uint32_t j = 0; j < head_dim; j += kChunk) {
      ValueTiles(weights, values + size_t{j} * kBlockTokens, sums, ahead);
      for (uint32_t r = 0; r < kRows; ++r) {
        GatherRow(sums + r * kChunk, work.values.means + j, scales[r], masses[r],
                  state.values + size_t{first + r} * head_dim + j);
      }
    }
  });
  ahead.Rest();
}

}  // namespace
}  // namespace corpusd
