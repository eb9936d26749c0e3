// kernels/cpu/isa/amx_groups.h -- the products of int16_groups.h by AMX int8 tiles, for a batch of
// decodes: 16 rows times a panel, a group of 32 inputs at a time, high bytes and low bytes of the
// rows apart. The integers of a group are exact, and what follows them is the same operation row by
// row, so the bits are those of a row alone, which the other instructions serve better. Included
// after amx_tiles.h by one translation unit.
#pragma once

namespace corpusd {
namespace {

// From so many rows on tiles are the faster way.
constexpr uint32_t kTileGroupRows = 5;
constexpr uint32_t kGroupTileBytes = 8 * 64;  // of a panel's codes as bytes: 8 quads of inputs

// Sums of a group: high bytes, then low bytes, each [16 rows][16 outputs].
struct alignas(64) GroupSums {
  int32_t high[16 * kLanes];
  int32_t low[16 * kLanes];
};

// Nibbles of group g of a panel as a tile's bytes, inputs in the order of a prepared row's second
// half.
inline void SpreadNibbles(const std::byte* codes, uint32_t g, std::byte* out) {
  const __m512i nibble = _mm512_set1_epi8(15);
#pragma GCC unroll 4
  for (uint32_t c = 0; c < 4; ++c) {
    const __m512i w = _mm512_loadu_si512(codes + (size_t{g} * 4 + c) * 64);
    _mm512_store_si512(out + c * 128, _mm512_and_si512(w, nibble));
    _mm512_store_si512(out + c * 128 + 64, _mm512_and_si512(_mm512_srli_epi32(w, 4), nibble));
  }
}

// One group's sums of 16 rows, in tiles 0 and 1; tile: its codes as bytes.
template <PackedKind kKind>
inline void MultiplyGroup(const std::byte* rows, uint64_t row_bytes, uint32_t g,
                          const std::byte* tile) {
  const std::byte* a =
      rows + size_t{g} * kGroupCodeBytes + (kKind == PackedKind::kQ4 ? kNibbleOrder : 0);
  __atomic_signal_fence(__ATOMIC_SEQ_CST);  // see ScoreTiles
  _tile_zero(0);
  _tile_zero(1);
  _tile_loadd(4, a, row_bytes);
  _tile_loadd(5, a + kQuantBlock, row_bytes);
  _tile_loadd(6, tile, 64);
  if constexpr (kKind == PackedKind::kQ4) {
    _tile_dpbsud(0, 4, 6);
    _tile_dpbuud(1, 5, 6);
  } else {
    _tile_dpbssd(0, 4, 6);
    _tile_dpbusd(1, 5, 6);
  }
}
inline void StoreGroup(GroupSums* sums) {
  _tile_stored(0, sums->high, 64);
  _tile_stored(1, sums->low, 64);
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

// Where the sums of the codes of all rows lie once more, group by group: [groups][2 * kFewRows],
// half a line behind the begin of one, so that the first 8 rows and the others, which two threads
// prepare, are in lines of their own.
constexpr uint32_t kTurnedBegin = 8;
inline const float* TurnedSums(const std::byte* prepared, uint32_t cols) {
  return reinterpret_cast<const float*>(prepared + 2 * kFewRows * GroupRowBytes(cols)) +
         kTurnedBegin;
}

// The rows of a task of tiles.
struct TileRows {
  GroupRows rows;
  const float* sums;  // [groups][2 * kFewRows], from the task's first row on
};

// Adds a group's sums to the rows' totals, as GroupPanel does.
template <PackedKind kKind, uint32_t kRows>
inline __attribute__((always_inline)) void AddGroup(const float* row_sums, const std::byte* panel,
                                                    uint32_t g, const GroupSums& sums,
                                                    Lanes (&totals)[kRows]) {
  const Lanes d = GroupScale<kKind>(panel, g);
  Lanes m = d;
  if constexpr (kKind == PackedKind::kQ4) m = GroupMinimum(panel, g);
  row_sums += size_t{g} * 2 * kFewRows;
#pragma GCC unroll 16
  for (uint32_t r = 0; r < kRows; ++r) {
    const __m512i high = _mm512_load_si512(sums.high + r * kLanes);
    const __m512i low = _mm512_load_si512(sums.low + r * kLanes);
    const Lanes dot = ToFloat({_mm512_add_epi32(_mm512_slli_epi32(high, 8), low)});
    totals[r] = Fma(dot, d, totals[r]);
    if constexpr (kKind == PackedKind::kQ4) {
      totals[r] = Fma(m, BroadcastFrom(row_sums + r), totals[r]);
    }
  }
}

// kRows of them hold rows of the task.
template <PackedKind kKind, uint32_t kRows>
void TileGroupPanel(const MatMulTask& task, const TileRows& rows, uint32_t p, std::byte* scratch) {
  const std::byte* panel = task.weight.panel(p);
  const std::byte* codes = panel + PackedScaleBytes(kKind, task.weight.cols);
  const uint64_t row_bytes = GroupRowBytes(rows.rows.cols);
  const uint32_t groups = task.weight.cols / kQuantBlock;
  auto* sums = reinterpret_cast<GroupSums*>(scratch);
  std::byte* spread = scratch + 2 * sizeof(GroupSums);  // a ring of four tiles
  const auto fetch = [&](uint32_t g) {
    FetchAhead<kKind>(task, panel, g);
    if constexpr (kKind == PackedKind::kQ4) {
      SpreadNibbles(codes, g, spread + g % 4 * kGroupTileBytes);
    }
  };
  const auto multiply = [&](uint32_t g) {
    const std::byte* tile = kKind == PackedKind::kQ4 ? spread + g % 4 * kGroupTileBytes
                                                     : codes + size_t{g} * kGroupTileBytes;
    MultiplyGroup<kKind>(rows.rows.data, row_bytes, g, tile);
  };
  Lanes totals[kRows];
#pragma GCC unroll 16
  for (uint32_t r = 0; r < kRows; ++r) totals[r] = Zero();
  for (uint32_t g = 0; g < MinU32(3, groups); ++g) fetch(g);
  multiply(0);
  StoreGroup(&sums[0]);
  for (uint32_t g = 1; g < groups; ++g) {
    multiply(g);
    if (g + 2 < groups) fetch(g + 2);
    AddGroup<kKind, kRows>(rows.sums, panel, g - 1, sums[(g - 1) % 2], totals);
    StoreGroup(&sums[g % 2]);  // behind those sums, which take as long as the products
  }
  AddGroup<kKind, kRows>(rows.sums, panel, groups - 1, sums[(groups - 1) % 2], totals);
  // Through memory: indexed by a loop, they would not be in registers.
  auto* kept = reinterpret_cast<float*>(scratch);
#pragma GCC unroll 16
  for (uint32_t r = 0; r < kRows; ++r) Store(kept + r * kLanes, totals[r]);
  const uint32_t width = task.weight.rows - p * kLanes;
  for (uint32_t r = 0; r < MinU32(kRows, task.rows); ++r) {
    float* target = task.out + size_t{task.first_row + r} * task.out_stride + p * kLanes;
    Lanes result = Mul(Load(kept + r * kLanes), Broadcast(rows.rows.scale(r)));
    if (task.accumulate) result = Add(LoadFirst(target, width), result);
    StoreFirst(target, result, width);
  }
}

template <PackedKind kKind>
void TileGroupProduct(const MatMulTask& task) {
  const TileScope<kByteTiles> tiles;
  const uint32_t cols = task.weight.cols;
  const TileRows rows{{task.prepared + task.first_row * GroupRowBytes(cols), cols},
                      TurnedSums(task.prepared, cols) + task.first_row};
  for (uint32_t p = task.first_panel; p < task.first_panel + task.panels; ++p) {
    if (task.rows <= 8) {
      TileGroupPanel<kKind, 8>(task, rows, p, task.scratch);
    } else {
      TileGroupPanel<kKind, 16>(task, rows, p, task.scratch);
    }
  }
}

// Products of few rows: tiles read 16 rows from the task's first one on.
uint64_t AmxPreparedBytes(uint32_t call_rows, uint32_t cols) noexcept {
  if (call_rows > kFewRows) return Bf16PreparedBytes(call_rows, cols);
  if (call_rows < kTileGroupRows || cols % kQuantBlock != 0) {
    return PreparedGroupBytes(call_rows, cols);
  }
  return PreparedGroupBytes(2 * kFewRows, cols) +
         (uint64_t{cols} / kQuantBlock * 2 * kFewRows + 2 * kTurnedBegin) * sizeof(float);
}

void AmxPrepareRows(std::byte* prepared, const float* x, uint32_t x_stride, uint32_t cols,
                    uint32_t call_rows, uint32_t first_row, uint32_t rows) noexcept {
  Bf16PrepareRows(prepared, x, x_stride, cols, call_rows, first_row, rows);
  if (call_rows > kFewRows || call_rows < kTileGroupRows || cols % kQuantBlock != 0) return;
  auto* turned = const_cast<float*>(TurnedSums(prepared, cols));
  for (uint32_t r = first_row; r < first_row + rows; ++r) {
    const float* sums =
        reinterpret_cast<const float*>(prepared + r * GroupRowBytes(cols) + GroupSumsOffset(cols));
    for (uint32_t g = 0; g < cols / kQuantBlock; ++g) turned[g * 2 * kFewRows + r] = sums[g];
  }
}

inline void FewRowsMatMul(const MatMulTask& task) {
  if (task.rows < kTileGroupRows) return GroupMatMul(task);
  if (task.weight.kind == PackedKind::kQ4) return TileGroupProduct<PackedKind::kQ4>(task);
  if (task.weight.kind == PackedKind::kQ8) return TileGroupProduct<PackedKind::kQ8>(task);
  GroupMatMul(task);
}

void AmxMatMul(const MatMulTask& task) noexcept {
  if (task.call_rows <= kFewRows) return FewRowsMatMul(task);
  ManyRowsMatMul(task);
}

}  // namespace
}  // namespace corpusd
