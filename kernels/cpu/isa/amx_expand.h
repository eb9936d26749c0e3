// kernels/cpu/isa/amx_expand.h -- the products of page_expand.h by bf16 tiles: levels are exact in
// bf16, and a matrix is two terms, so that nothing but the result is rounded. Included after
// amx_tiles.h and page_expand.h by one translation unit.
#pragma once

namespace corpusd {
namespace {

struct TileRounding {
  static void StorePairs(std::byte* p, Lanes even, Lanes odd) {
    _mm512_storeu_si512(p, PairsOf(even, odd));
  }
};

// c[rows][cols] = a0 * b0 + a1 * b1, both of the same shape. REQUIRES: multiples of 32.
inline void SumOfProducts(TileFactors first, TileFactors second, uint32_t rows, uint32_t cols,
                          float* c) {
  __atomic_signal_fence(__ATOMIC_SEQ_CST);  // see ScoreTiles
  for (uint32_t r = 0; r < rows; r += 2 * kTileSide) {
    for (uint32_t i = 0; i < cols; i += 2 * kTileSide) {
      const auto at = [&](TileFactors f) {
        f.a += r * f.a_stride;
        f.b0 += size_t{i} * 4;
        f.b1 = f.b0 + kTileSide * 4;
        return f;
      };
      BeginTiles();
      AddTiles(at(first));
      AddTiles(at(second));
      EndTiles(c + size_t{r} * cols + i, cols);
    }
  }
}

struct TileExpansion {
  // [head_dim][2 * head_dim]: rows of key.query, their upper terms, then what is missing of them.
  uint16_t* key_rows;
  bool in_slot_order = false;  // their columns
  bool has_key_rows = false;
  uint16_t* value_pairs;  // [2][head_dim / 2][head_dim][2]: value.inverse, likewise

  TileExpansion(const ExpandTask& task, const ExpandWork& work)
      : key_rows(work.matrix),
        value_pairs(work.matrix + size_t{task.head_dim} * task.head_dim * 2) {
    const uint32_t head_dim = task.head_dim;
    const float* inverse = task.basis->value.inverse;
    for (uint32_t k = 0; k < head_dim; k += 2) {
      for (uint32_t i = 0; i < head_dim; i += kLanes) {
        const Lanes even = Load(inverse + size_t{k} * head_dim + i);
        const Lanes odd = Load(inverse + size_t{k + 1} * head_dim + i);
        uint16_t* out = value_pairs + size_t{k} * head_dim + size_t{i} * 2;
        _mm512_storeu_si512(out, PairsOf(even, odd));
        _mm512_storeu_si512(out + size_t{head_dim} * head_dim,
                            PairsOf(Missing(even), Missing(odd)));
      }
    }
  }

  // What rounding to bf16 takes from v.
  static Lanes Missing(Lanes v) {
    const auto rounded = (__m256i)_mm512_cvtneps_pbh(v.v);
    return Sub(v, {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(rounded), 16))});
  }

  void MakeKeyRows(const ExpandTask& task, bool slot_order) {
    if (has_key_rows && in_slot_order == slot_order) return;
    const uint32_t head_dim = task.head_dim;
    for (uint32_t r = 0; r < head_dim; ++r) {
      for (uint32_t i = 0; i < head_dim; i += kLanes) {
        Lanes v = Load(task.basis->key.query + size_t{r} * head_dim + i);
        if (slot_order) v = ToSlotOrder(v);
        uint16_t* out = key_rows + size_t{r} * 2 * head_dim + i;
        StoreBf16(out, v);
        StoreBf16(out + head_dim, Missing(v));
      }
    }
    has_key_rows = true;
    in_slot_order = slot_order;
  }

  void Keys(const ExpandTask& task, uint64_t turn, const PageTile& tile, const ExpandWork& work,
            std::byte* out) {
    const uint32_t head_dim = task.head_dim;
    const std::byte* pairs = tile.tile;
    if (tile.codec == KvCodec::kInt8) {
      pairs = reinterpret_cast<const std::byte*>(work.factor);
      ExpandInt8Tile(reinterpret_cast<std::byte*>(work.factor), tile.tile, kBlockTokens,
                     kBlockTokens, head_dim);
    }
    MakeKeyRows(task, tile.codec == KvCodec::kInt8);
    TileFactors factors{.a = reinterpret_cast<const std::byte*>(key_rows),
                        .a_stride = size_t{head_dim} * 4,
                        .b0 = pairs,
                        .b1 = nullptr,
                        .b_stride = kBlockTokens * 4,
                        .depth = head_dim};
    TileFactors missing = factors;
    missing.a += size_t{head_dim} * 2;
    SumOfProducts(factors, missing, head_dim, kBlockTokens, work.product);
    for (uint32_t t = 0; t < kBlockTokens; t += kLanes) {
      FinishKeys<TileRounding>(task, turn, tile, work, t, work.product + t, kBlockTokens, out);
    }
  }

  // Tokens as rows, in their natural order, into work.factor.
  static void TokenRows(const PageTile& tile, uint32_t head_dim, const ExpandWork& work) {
    const uint32_t pack = tile.codec == KvCodec::kBf16 ? 2 : 4;
    for (uint32_t t = 0; t < kBlockTokens; t += pack) {
      for (uint32_t i = 0; i < head_dim; i += kLanes) {
        const __m512i v = _mm512_loadu_si512(tile.tile + (size_t{t / pack} * head_dim + i) * 4);
        const auto put = [&](uint32_t token, __m256i row) {
          _mm256_storeu_si256(
              reinterpret_cast<__m256i*>(work.factor + size_t{token} * head_dim + i), row);
        };
        if (pack == 2) {
          put(t, _mm512_cvtepi32_epi16(v));
          put(t + 1, _mm512_cvtepi32_epi16(_mm512_srli_epi32(v, 16)));
          continue;
        }
        const uint32_t first = t / 16 * 16;
        const auto row = [](Lanes levels) { return (__m256i)_mm512_cvtneps_pbh(levels.v); };
        put(first + AtSlot(t), row(ByteToFloat<0>({v})));
        put(first + AtSlot(t + 1), row(ByteToFloat<1>({v})));
        put(first + AtSlot(t + 2), row(ByteToFloat<2>({v})));
        put(first + AtSlot(t + 3), row(ByteToFloat<3>({v})));
      }
    }
  }

  void Values(const ExpandTask& task, const PageTile& tile, const ExpandWork& work,
              std::byte* out) {
    const uint32_t head_dim = task.head_dim;
    TokenRows(tile, head_dim, work);
    TileFactors factors{.a = reinterpret_cast<const std::byte*>(work.factor),
                        .a_stride = size_t{head_dim} * 2,
                        .b0 = reinterpret_cast<const std::byte*>(value_pairs),
                        .b1 = nullptr,
                        .b_stride = size_t{head_dim} * 4,
                        .depth = head_dim};
    TileFactors missing = factors;
    missing.b0 += size_t{head_dim} * head_dim * 2;
    SumOfProducts(factors, missing, kBlockTokens, head_dim, work.product);
    for (uint32_t t = 0; t < kBlockTokens; t += kLanes) {
      FinishValues<TileRounding>(head_dim, tile, work, t, work.product + size_t{t} * head_dim, out);
    }
  }
};

void AmxExpandPages(const ExpandTask& task) noexcept {
  const TileScope<> tiles;
  ExpandPages<TileExpansion>(task);
}

}  // namespace
}  // namespace corpusd
