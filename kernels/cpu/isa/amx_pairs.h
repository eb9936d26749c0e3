// kernels/cpu/isa/amx_pairs.h -- attention of many questions' rows over a coded page: two passes of
// amx_coded.h at a time, whose terms fill the tiles, and each step for several of them before the
// next step, so that none waits for a tile that was just written. A page is unpacked once for all
// rows; a row's arithmetic is that of its pass alone. Included after amx_coded.h by one translation
// unit.
#pragma once

namespace corpusd {
namespace {

constexpr uint32_t kPairRows = 2 * kPassRows;
constexpr uint32_t kPairTerms = 2 * kPassTerms;
constexpr uint32_t kPairs = 2;  // whose rows take a step one after the other
constexpr uint32_t kPairSums =
    (kMaxCodedDim > kBlockTokens ? kMaxCodedDim : kBlockTokens) * kPairTerms;
constexpr uint32_t kPairsRows = kPairs * kPairRows;
constexpr uint32_t kLaterSteps = 5;

// Asks for a page's share of what a task reads behind its part, a few lines at each of kLaterSteps
// a row: a processor waits for some 16 at a time.
class LaterReads {
 public:
  LaterReads(const AttentionTask& task, uint32_t page, uint32_t rows)
      : range_(task.read_next), end_(task.read_next + task.read_ranges) {
    uint32_t lines = 0;
    for (const ReadRange* range = range_; range != end_; ++range) {
      lines += range->rows * LinesOfRow(*range);
    }
    const uint32_t share = (lines + kPartPages - 1) / kPartPages;
    const uint32_t steps = rows * kLaterSteps;
    each_ = (share + steps - 1) / steps;
    left_ = share;
    Skip(page % kPartPages * share);
  }
  void Take() {
    for (uint32_t i = 0; i < each_ && left_ > 0 && range_ != end_; ++i, --left_) {
      __builtin_prefetch(range_->first + size_t{row_} * range_->stride + line_ * 64, 0, 2);
      if (++line_ < LinesOfRow(*range_)) continue;
      line_ = 0;
      if (++row_ < range_->rows) continue;
      row_ = 0;
      ++range_;
    }
  }

 private:
  static uint32_t LinesOfRow(const ReadRange& range) { return (range.row_bytes + 63) / 64; }
  void Skip(uint32_t lines) {
    for (; range_ != end_; ++range_) {
      const uint32_t of_row = LinesOfRow(*range_);
      if (lines < range_->rows * of_row) {
        row_ = lines / of_row;
        line_ = lines % of_row;
        return;
      }
      lines -= range_->rows * of_row;
    }
  }
  const ReadRange* range_;
  const ReadRange* end_;
  uint32_t row_ = 0, line_ = 0;
  uint32_t each_ = 0, left_ = 0;
};

// Queries of a pair, mapped[rows][head_dim], as the second factor of keys:
// out[head_dim / 64][16 quads, [t][f]][16 terms][4]. bytes: room for 16 * head_dim.
inline void PackPair(const float* mapped, uint32_t rows, uint32_t head_dim, int8_t* bytes,
                     std::byte* out, float* scales, LaterReads& later) {
  const auto terms_of = [&](uint32_t pass, uint32_t term, uint32_t r) {
    return bytes + size_t{(2 * pass + term) * kPassRows + r} * head_dim;
  };
  for (uint32_t s = 0; s < kPairRows; ++s) {
    const uint32_t pass = s / kPassRows, r = s % kPassRows;
    later.Take();
    scales[s] = s >= rows ? 0.0f
                          : SplitQuery(mapped + size_t{s} * head_dim, head_dim,
                                       terms_of(pass, 0, r), terms_of(pass, 1, r));
  }
  for (uint32_t i = 0; i < head_dim; i += kChunk, out += 1024) {
    __m512i terms[4][kPassRows];
#pragma GCC unroll 4
    for (uint32_t k = 0; k < 4; ++k) {
#pragma GCC unroll 4
      for (uint32_t r = 0; r < kPassRows; ++r) {
        terms[k][r] = k / 2 * kPassRows + r < rows
                          ? _mm512_loadu_si512(terms_of(k / 2, k % 2, r) + i)
                          : _mm512_setzero_si512();
      }
      TurnDwords(terms[k]);  // [t]: lane f has the rows' quads t
    }
#pragma GCC unroll 4
    for (uint32_t t = 0; t < 4; ++t) {
      __m512i quads[4] = {terms[0][t], terms[1][t], terms[2][t], terms[3][t]};
      TurnLanes(quads);
#pragma GCC unroll 4
      for (uint32_t f = 0; f < 4; ++f) _mm512_store_si512(out + (4 * t + f) * 64, quads[f]);
    }
  }
}

// c[128][16] = the keys' rows times the query terms of a pair.
inline void ScorePair(const std::byte* keys, const std::byte* queries, uint32_t head_dim,
                      int32_t* c) {
  __atomic_signal_fence(__ATOMIC_SEQ_CST);  // see ScoreTiles
  constexpr size_t kChunkBytes = size_t{kBlockTokens} * kChunk;
  _tile_loadd(2, queries, 64);
  for (uint32_t i = 0; i < kBlockTokens / kTileSide; i += 4, keys += 4096, c += 1024) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(3);
    _tile_zero(4);
    for (uint32_t k = 0; k < head_dim / kChunk; ++k) {
      const std::byte* rows = keys + k * kChunkBytes;
      if (head_dim > kChunk) _tile_loadd(2, queries + size_t{k} * 1024, 64);
      _tile_loadd(5, rows, 64);
      _tile_dpbssd(0, 5, 2);
      _tile_loadd(6, rows + 1024, 64);
      _tile_dpbssd(1, 6, 2);
      _tile_loadd(7, rows + 2048, 64);
      _tile_dpbssd(3, 7, 2);
      _tile_loadd(5, rows + 3072, 64);
      _tile_dpbssd(4, 5, 2);
    }
    _tile_stored(0, c, 64);
    _tile_stored(1, c + 256, 64);
    _tile_stored(3, c + 512, 64);
    _tile_stored(4, c + 768, 64);
  }
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

// Rows of a page, from the first that sees it on.
struct PairRows {
  const PageView& view;
  uint32_t group;
  const float* query_scales;
  const float* constants;
  float* scores;  // [kPairsRows][kBlockTokens], in slot order: of two pairs at a time
  SeenKeys SeenAt(uint32_t s) const { return view.SeenAt((view.first + s) / group); }
  bool SeesAll(uint32_t s) const {
    const SeenKeys seen = SeenAt(s);
    return seen.hidden == 0 && seen.visible == kBlockTokens;
  }
};

// Scores of a pair from row s on out of sums, and each row's largest.
inline void FinishPair(const int32_t* c, const float* key_scales, const PairRows& rows, uint32_t s,
                       float* largest, LaterReads& later) {
  Lanes top[kPairRows];
#pragma GCC unroll 8
  for (uint32_t r = 0; r < kPairRows; ++r) top[r] = Broadcast(kMinusInfinity);
  for (uint32_t t = 0; t < kBlockTokens; t += kLanes, c += kLanes * kPairTerms) {
    __m512i sums[2][4];
#pragma GCC unroll 4
    for (uint32_t j = 0; j < 4; ++j) {
      __m512i two[2];  // of two keys each: [pass 0, pass 1] of one, then of the other
#pragma GCC unroll 2
      for (uint32_t k = 0; k < 2; ++k) {
        const __m512i a = _mm512_load_si512(c + (4 * j + 2 * k) * kPairTerms);
        const __m512i b = _mm512_load_si512(c + (4 * j + 2 * k + 1) * kPairTerms);
        const __m512i high = _mm512_shuffle_i32x4(a, b, 0x88);
        two[k] = _mm512_add_epi32(_mm512_slli_epi32(high, 7), _mm512_shuffle_i32x4(a, b, 0xdd));
      }
      sums[0][j] = _mm512_shuffle_i32x4(two[0], two[1], 0x88);
      sums[1][j] = _mm512_shuffle_i32x4(two[0], two[1], 0xdd);
    }
    later.Take();
    const Lanes key_scale = Load(key_scales + t);
#pragma GCC unroll 2
    for (uint32_t pass = 0; pass < 2; ++pass) {
      TurnDwords(sums[pass]);
#pragma GCC unroll 4
      for (uint32_t i = 0; i < kPassRows; ++i) {
        const uint32_t r = pass * kPassRows + i;
        const Lanes dot =
            Mul({_mm512_cvtepi32_ps(sums[pass][i])}, Broadcast(rows.query_scales[s + r]));
        const Lanes score = Fma(dot, key_scale, Broadcast(rows.constants[s + r]));
        Store(rows.scores + size_t{(s + r) % kPairsRows} * kBlockTokens + t, score);
        top[r] = Max(top[r], score);
      }
    }
  }
#pragma GCC unroll 8
  for (uint32_t r = 0; r < kPairRows; ++r) largest[r] = ReduceMax(top[r]);
}

// What a row does not see out of its scores. RETURNS the largest of the others.
inline float HideScores(float* scores, SeenKeys seen) {
  Lanes top = Broadcast(kMinusInfinity);
  for (uint32_t t = 0; t < kBlockTokens; t += kLanes) {
    const Lanes s = KeepSlots(SeenSlots(seen, t), Load(scores + t), Broadcast(kMinusInfinity));
    Store(scores + t, s);
    top = Max(top, s);
  }
  return ReduceMax(top);
}

// c[16][64 columns] = the weight terms of a pair times 64 dims of the values.
inline void ValuePair(const std::byte* weights, const std::byte* values, int32_t* c) {
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
  constexpr size_t kBlockBytes = size_t{kBlockTokens} * kTileSide;
  _tile_loadd(4, weights, kBlockTokens);
  _tile_loadd(5, weights + kChunk, kBlockTokens);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_loadd(6, values, 64);
  _tile_dpbusd(0, 4, 6);
  _tile_loadd(7, values + kBlockBytes, 64);
  _tile_dpbusd(1, 4, 7);
  _tile_loadd(6, values + 2 * kBlockBytes, 64);
  _tile_dpbusd(2, 4, 6);
  _tile_loadd(7, values + 3 * kBlockBytes, 64);
  _tile_dpbusd(3, 4, 7);
  _tile_loadd(6, values + 1024, 64);
  _tile_dpbusd(0, 5, 6);
  _tile_loadd(7, values + kBlockBytes + 1024, 64);
  _tile_dpbusd(1, 5, 7);
  _tile_loadd(6, values + 2 * kBlockBytes + 1024, 64);
  _tile_dpbusd(2, 5, 6);
  _tile_loadd(7, values + 3 * kBlockBytes + 1024, 64);
  _tile_dpbusd(3, 5, 7);
  _tile_stored(0, c, kChunk * 4);
  _tile_stored(1, c + kTileSide, kChunk * 4);
  _tile_stored(2, c + 2 * kTileSide, kChunk * 4);
  _tile_stored(3, c + 3 * kTileSide, kChunk * 4);
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

// Row s's scores into terms, its sums into the state. RETURNS the scale of its terms.
inline float WeighPairRow(const PairRows& rows, uint32_t s, float largest,
                          const AttentionWork<uint16_t>& work, uint32_t head_dim, std::byte* terms,
                          SoftmaxState state, float* mass, ReadAhead& ahead) {
  const uint32_t row = rows.view.first + s;
  float* scores = rows.scores + size_t{s % kPairsRows} * kBlockTokens;
  const SeenKeys seen = rows.SeenAt(s);
  const bool whole = rows.SeesAll(s);
  if (!whole) largest = HideScores(scores, seen);
  const float before = state.largest[row];
  largest = largest > before ? largest : before;
  float scale;
  *mass = whole
              ? WeighScores<false>(scores, seen, largest, work.values.scales, terms, &scale, ahead)
              : WeighScores<true>(scores, seen, largest, work.values.scales, terms, &scale, ahead);
  AddToRow(state, row, largest, *mass, head_dim);
  return scale;
}

// Rows [s, s + count) of a page whose tiles are unpacked; their terms: of queries.
inline void AttendPairs(const PairRows& rows, uint32_t s, uint32_t count, uint32_t head_dim,
                        const std::byte* terms, const AttentionWork<uint16_t>& work,
                        SoftmaxState state, ReadAhead& ahead, LaterReads& later) {
  alignas(64) int32_t sums[kPairSums];  // of scores, then of values
  float largest[kPairsRows], scales[kPairsRows], masses[kPairsRows];
  auto* const weights = reinterpret_cast<std::byte*>(work.weights);
  for (uint32_t r = 0; r < count; r += kPairRows) {
    ScorePair(work.keys.levels, terms + size_t{r} * 2 * head_dim, head_dim, sums);
    FinishPair(sums, work.keys.scales, rows, s + r, largest + r, later);
  }
  const auto terms_at = [&](uint32_t r) {
    return weights + size_t{r + r / kPassRows * kPassRows} * kBlockTokens;
  };
  for (uint32_t r = 0; r < count; ++r) {
    later.Take();
    scales[r] = WeighPairRow(rows, s + r, largest[r], work, head_dim, terms_at(r), state,
                             &masses[r], ahead);
    later.Take();
  }
  for (uint32_t r = 0; r < count; ++r) {
    for (uint32_t j = 0; j < head_dim; j += kChunk) {
      int32_t* const c = sums + size_t{j} * kPairTerms;
      if (r % kPairRows == 0) {
        ValuePair(terms_at(r), work.expanded + size_t{j} * kBlockTokens, c);
      }
      const uint32_t row = r % kPairRows;
      GatherRow(c + size_t{row + row / kPassRows * kPassRows} * kChunk, work.values.means + j,
                scales[r], masses[r],
                state.values + size_t{rows.view.first + s + r} * head_dim + j);
    }
    later.Take();
  }
}

// As AmxAttendCoded, of any number of stacked rows; tiles are whole ones.
void AmxAttendPairs(const AttentionTask& task, const PageTiles& page, const PageTiles* next,
                    bool mapped_whole, const AttentionWork<uint16_t>& work, SoftmaxState state) {
  const PageView view = ViewOf(task, page, kLanes);
  if (view.stacked == 0) return;
  const uint32_t head_dim = task.shape.head_dim;
  const std::byte* key_bytes = page.keys + task.kv_head * page.key_stride;
  const std::byte* value_bytes = page.values + task.kv_head * page.value_stride;
  const float* mapped = AmxMappedQueries(task, page, view, mapped_whole, work);
  ReadAhead ahead = AheadOf(task, next);
  const auto unpack = [&](KvCodec codec, bool is_key, std::byte* levels, const std::byte* tile,
                          const UnpackedTile& to) {
    UnpackRowsOf(CodeBits(codec), is_key, levels, tile, head_dim, ahead);
    UnpackScales(to.scales, to.means, tile, CodeBits(codec), false, head_dim);
  };
  unpack(page.key_codec, true, work.keys.levels, key_bytes, work.keys);
  unpack(page.value_codec, false, work.expanded, value_bytes, work.values);
  auto* const terms = reinterpret_cast<std::byte*>(work.queries);
  float* const query_scales = work.masses;
  LaterReads later(task, static_cast<uint32_t>(&page - task.pages), view.stacked);
  for (uint32_t s = 0; s < view.stacked; s += kPairRows) {
    const uint32_t rows = MinU32(kPairRows, view.stacked - s);
    PackPair(mapped + size_t{s} * head_dim, rows, head_dim, reinterpret_cast<int8_t*>(work.weights),
             terms + size_t{s} * 2 * head_dim, query_scales + s, later);
    for (uint32_t r = s; r < s + kPairRows; ++r) {
      work.constants[r] = r < view.stacked
                              ? QueryConstant(mapped + size_t{r} * head_dim, work.keys.means,
                                              head_dim, task.basis->key)
                              : 0.0f;
    }
  }
  const PairRows rows{.view = view,
                      .group = task.shape.q_heads / task.shape.kv_heads,
                      .query_scales = query_scales,
                      .constants = work.constants,
                      .scores = work.scores};
  for (uint32_t s = 0; s < view.stacked; s += kPairsRows) {
    AttendPairs(rows, s, MinU32(kPairsRows, view.stacked - s), head_dim,
                terms + size_t{s} * 2 * head_dim, work, state, ahead, later);
  }
  ahead.Rest();
}

}  // namespace
}  // namespace corpusd
