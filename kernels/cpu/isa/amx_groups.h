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

// One group's sums of 16 rows; tile: its codes as bytes.
template <PackedKind kKind>
inline void MultiplyGroup(const std::byte* rows, uint64_t row_bytes, uint32_t g,
                          const std::byte* tile, GroupSums* sums) {
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
  _tile_stored(0, sums->high, 64);
  _tile_stored(1, sums->low, 64);
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

// Adds a group's sums to the rows' totals, as GroupPanel does.
template <PackedKind kKind, uint32_t kRows>
inline __attribute__((always_inline)) void AddGroup(const GroupRows& rows, const std::byte* panel,
                                                    uint32_t g, const GroupSums& sums,
                                                    Lanes (&totals)[kRows]) {
  const Lanes d = GroupScale<kKind>(panel, g);
  Lanes m = d;
  if constexpr (kKind == PackedKind::kQ4) m = GroupMinimum(panel, g);
  const float* row_sums = rows.sums(0) + g;
  const size_t stride = GroupRowBytes(rows.cols) / sizeof(float);
#pragma GCC unroll 16
  for (uint32_t r = 0; r < kRows; ++r) {
    const __m512i high = _mm512_load_si512(sums.high + r * kLanes);
    const __m512i low = _mm512_load_si512(sums.low + r * kLanes);
    const Lanes dot = ToFloat({_mm512_add_epi32(_mm512_slli_epi32(high, 8), low)});
    totals[r] = Fma(dot, d, totals[r]);
    if constexpr (kKind == PackedKind::kQ4) {
      totals[r] = Fma(m, BroadcastFrom(row_sums + r * stride), totals[r]);
    }
  }
}

// kRows of them hold rows of the task.
template <PackedKind kKind, uint32_t kRows>
void TileGroupPanel(const MatMulTask& task, const GroupRows& rows, uint32_t p, std::byte* scratch) {
  const std::byte* panel = task.weight.panel(p);
  const std::byte* codes = panel + PackedScaleBytes(kKind, task.weight.cols);
  const uint64_t row_bytes = GroupRowBytes(rows.cols);
  const uint32_t groups = task.weight.cols / kQuantBlock;
  auto* sums = reinterpret_cast<GroupSums*>(scratch);
  std::byte* spread = scratch + 2 * sizeof(GroupSums);  // a ring of four tiles
  const auto fetch = [&](uint32_t g) {
    FetchAhead<kKind>(task, panel, g);
    if constexpr (kKind == PackedKind::kQ4) {
      SpreadNibbles(codes, g, spread + g % 4 * kGroupTileBytes);
    }
  };
  Lanes totals[kRows];
  for (uint32_t r = 0; r < kRows; ++r) totals[r] = Zero();
  for (uint32_t g = 0; g < MinU32(2, groups); ++g) fetch(g);
  for (uint32_t g = 0; g <= groups; ++g) {
    if (g + 2 < groups) fetch(g + 2);
    if (g < groups) {
      const std::byte* tile = kKind == PackedKind::kQ4 ? spread + g % 4 * kGroupTileBytes
                                                       : codes + size_t{g} * kGroupTileBytes;
      MultiplyGroup<kKind>(rows.data, row_bytes, g, tile, &sums[g % 2]);
    }
    if (g > 0) AddGroup<kKind, kRows>(rows, panel, g - 1, sums[(g - 1) % 2], totals);
  }
  const uint32_t width = task.weight.rows - p * kLanes;
  for (uint32_t r = 0; r < MinU32(kRows, task.rows); ++r) {
    float* target = task.out + size_t{task.first_row + r} * task.out_stride + p * kLanes;
    Lanes result = Mul(totals[r], Broadcast(rows.scale(r)));
    if (task.accumulate) result = Add(LoadFirst(target, width), result);
    StoreFirst(target, result, width);
  }
}

template <PackedKind kKind>
void TileGroupProduct(const MatMulTask& task) {
  const TileScope<kByteTiles> tiles;
  const uint32_t cols = task.weight.cols;
  const GroupRows rows{task.prepared + task.first_row * GroupRowBytes(cols), cols};
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
  return PreparedGroupBytes(call_rows < kTileGroupRows ? call_rows : 2 * kFewRows, cols);
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
