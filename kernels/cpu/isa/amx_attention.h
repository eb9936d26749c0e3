// kernels/cpu/isa/amx_attention.h -- the attention Policy by AMX: bf16 tiles for plain pages, int8
// tiles (amx_coded.h, amx_pairs.h) for coded ones. Included after amx_pairs.h by one translation
// unit.
#pragma once

namespace corpusd {
namespace {

struct AmxPolicy {
  using Element = uint16_t;
  using Expansion = TileExpansion;
  static constexpr uint32_t kTokenMultiple = kTileDepth;
  static constexpr bool kFetchesAhead = false;
  static void BeginExpanded(const AttentionTask& task, const AttentionWork<uint16_t>& work) {
    RotateRows<AmxPolicy>(task, task.frame, FirstInFrame(task), task.rows, work.queries);
  }
  static void BeginPart(const AttentionTask& task, uint32_t first, uint32_t end,
                        const AttentionWork<uint16_t>& work) {
    AmxBeginPart(task, first, end, work);
  }
  static void MapRows(const AttentionTask& task, uint32_t first, uint32_t count,
                      const AttentionWork<uint16_t>& work) {
    AmxMapRows(task, first, count, work);
  }
  static void Attend(const AttentionTask& task, const PageTiles& page, const PageTiles* next,
                     const AttentionWork<uint16_t>& work, SoftmaxState state) {
    if (task.basis == nullptr || !IsCodedPage(page) || task.call_rows > kFewRows) {
      return AttendPage<AmxPolicy>(task, page, next, work, state);
    }
    const auto index = static_cast<uint32_t>(&page - task.pages);
    const uint32_t first = index / kPartPages * kPartPages;
    const uint32_t end = MinU32(first + kPartPages, task.page_count);
    if (task.rows * (task.shape.q_heads / task.shape.kv_heads) > kPassRows) {
      return AmxAttendPairs(task, page, next, MapsWholePart(task, first, end), work, state);
    }
    const bool alone = IsCodedPart(task, first, end);
    if (!alone) _tile_loadconfig(&kTermTiles);
    AmxAttendCoded(task, page, next, MapsWholePart(task, first, end), work, state);
    if (!alone) _tile_loadconfig(&kWholeTiles);
  }
  static void StoreElements(uint16_t* p, Lanes v) { StoreBf16(p, v); }

  static void Multiply(uint32_t rows, const uint16_t* a, size_t a_stride, KvCodec codec,
                       const std::byte* tile, uint32_t tile_cols, uint32_t cols, uint32_t depth,
                       std::byte* expanded, float* c, size_t c_stride, bool add,
                       const std::byte* ahead, uint32_t room) {
    if (depth % kTileDepth != 0) {  // head sizes such as 48: no whole tile
      return Bf16Policy::Multiply(rows, a, a_stride, codec, tile, tile_cols, cols, depth, expanded,
                                  c, c_stride, add, ahead, room);
    }
    const std::byte* b = tile;
    size_t b_cols = tile_cols;
    if (codec == KvCodec::kInt8) {
      ExpandInt8Tile(expanded, tile, tile_cols, cols, depth);
      b = expanded;
      b_cols = cols;
    }
    for (uint32_t i = 0; i < cols; i += 2 * kTileSide) {
      const uint32_t width = MinU32(2 * kTileSide, cols - i);
      const std::byte* column = b + size_t{i} * 4;
      const TileFactors factors{.a = reinterpret_cast<const std::byte*>(a),
                                .a_stride = a_stride * 2,
                                .b0 = column,
                                .b1 = width > kTileSide ? column + kTileSide * 4 : nullptr,
                                .b_stride = b_cols * 4,
                                .depth = depth};
      TileGemm(factors, rows, width, c + i, c_stride, add, room);
    }
  }
};

// Ends the use of tile registers, which each part of few rows sets up for itself.
class PartTiles {
 public:
  explicit PartTiles(const AttentionTask& task) {
    if (ExpandsPages(task)) _tile_loadconfig(&kWholeTiles);
  }
  ~PartTiles() { _tile_release(); }
  PartTiles(const PartTiles&) = delete;
  PartTiles& operator=(const PartTiles&) = delete;
};

void AmxAttend(const AttentionTask& task) noexcept {
  const PartTiles tiles(task);
  Attend<AmxPolicy>(task);
}
void AmxAttendPart(const AttentionTask& task, uint32_t part, float* state) noexcept {
  const PartTiles tiles(task);
  AttendPart<AmxPolicy>(task, part, state);
}
void AmxAttendParts(const AttentionTask& task, uint32_t first, uint32_t end, float* into) noexcept {
  const PartTiles tiles(task);
  AttendParts<AmxPolicy>(task, first, end, into);
}

}  // namespace
}  // namespace corpusd
