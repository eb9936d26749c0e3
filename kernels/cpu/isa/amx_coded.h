// kernels/cpu/isa/amx_coded.h -- the products of coded_terms.h by AMX int8 tiles, for few rows:
// eight stacked rows fill a tile, their high bytes above, their low bytes below; and queries
// brought into the basis by bf16 tiles, those of several pages at once where rows are few. Included
// after amx_tiles.h and coded_terms.h by one translation unit.
#pragma once

namespace corpusd {
namespace {

constexpr uint32_t kTermColumns = 64;  // of four tiles side by side

// Rows [first, first + count) of work.turned, which is overwritten, times the basis in bf16.
void AmxMapRows(const AttentionTask& task, uint32_t first, uint32_t count,
                const AttentionWork<uint16_t>& work) {
  const uint32_t head_dim = task.shape.head_dim;
  float* rows = work.turned + size_t{first} * head_dim;
  auto* rounded = reinterpret_cast<uint16_t*>(rows);  // lies at or before its float
  for (size_t i = 0; i < size_t{count} * head_dim; i += kLanes) {
    StoreBf16(rounded + i, Load(rows + i));
  }
  __atomic_signal_fence(__ATOMIC_SEQ_CST);  // see TermTiles
  for (uint32_t i = 0; i < head_dim; i += 2 * kTileSide) {
    const auto* column =
        reinterpret_cast<const std::byte*>(task.basis->key.query_pairs + size_t{i} * 2);
    const TileFactors factors{.a = reinterpret_cast<const std::byte*>(rounded),
                              .a_stride = size_t{head_dim} * 2,
                              .b0 = column,
                              .b1 = column + kTileSide * 4,
                              .b_stride = size_t{head_dim} * 4,
                              .depth = head_dim};
    TileGemm(factors, count, 2 * kTileSide, work.mapped + size_t{first} * head_dim + i, head_dim,
             false, StackedRoom(task) - first);
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

// The queries of a part of few rows.
void AmxBeginPart(const AttentionTask& task, uint32_t first, uint32_t end,
                  const AttentionWork<uint16_t>& work) {
  if (task.basis == nullptr) return;
  const uint32_t head_dim = task.shape.head_dim;
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

// c[16][64] = a[16][64 * chunks] * b, b [16 * chunks][columns][4] with b_stride bytes a row.
template <bool kUnsigned>
inline void TermTiles(const void* a, size_t a_stride, const std::byte* b, size_t b_stride,
                      uint32_t chunks, int32_t* c) {
  // The tile loads of some compilers do not say that they read memory.
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
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

struct AmxTerms {
  static const float* MappedQueries(const AttentionTask& task, const PageTiles& page,
                                    const PageView& view, const AttentionWork<uint16_t>& work) {
    return AmxMappedQueries(task, page, view, work);
  }
  static void Score(const TermWork& terms, const std::byte* levels, uint32_t stacked,
                    uint32_t head_dim, uint32_t padded, float* scores) {
    ScoreTerms(terms, levels, stacked, head_dim, padded, scores);
  }
  static void Gather(const TermWork& terms, const PageTile& values, const float* masses,
                     uint32_t stacked, uint32_t head_dim, uint32_t padded, float* gathered) {
    AddTerms(terms, values, masses, stacked, head_dim, padded, gathered);
  }
};

}  // namespace
}  // namespace corpusd
