// kernels/cpu/cpu_kernels.h -- one table of function pointers per instruction set: complete, or
// absent. Every function is pure, noexcept, and lends nothing: no allocation, no locks, no I/O.
// Output row r depends on input row r alone, bit for bit, however the work is cut, except as
// few_rows says. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "kernels/cpu/cpu_features.h"
#include "kernels/cpu/packed_weight.h"
#include "kernels/index_tile.h"
#include "kernels/kv_rows.h"
#include "kernels/merge_order.h"
#include "kernels/shapes.h"

namespace corpusd {

// A piece of out (+)= x * weight^T: some rows times some panels.
struct MatMulTask {
  PackedWeight weight;
  const float* x = nullptr;  // [rows, cols] of the whole product
  uint32_t x_stride = 0;
  const std::byte* prepared = nullptr;  // all rows, by prepare_rows; null if prepared_bytes is 0
  float* out = nullptr;                 // [rows, weight.rows]
  uint32_t out_stride = 0;
  uint32_t first_row = 0;
  uint32_t rows = 0;
  uint32_t call_rows = 0;  // of the whole product; few_rows is about these
  uint32_t first_panel = 0;
  uint32_t panels = 0;
  bool accumulate = false;
  const std::byte* read_next = nullptr;  // a hint: what the thread reads behind these panels
  std::byte* scratch = nullptr;          // matmul_scratch_bytes, 64-byte aligned, one per thread
};

// One layer of one KvPage, resolved: tiles of KV head h at h * stride.
struct PageTiles {
  const std::byte* keys = nullptr;
  const std::byte* values = nullptr;
  uint64_t key_stride = 0;
  uint64_t value_stride = 0;
  uint64_t first_position = 0;
  uint32_t tokens = 0;
  uint32_t hidden = 0;  // slots at the start that no query sees
  KvCodec key_codec = KvCodec::kBf16;
  KvCodec value_codec = KvCodec::kBf16;
  bool expanded = false;  // by expand_pages: bf16, in no basis, keys turned to the task's frame
};

// Calls of at most so many rows may use other arithmetic than those of more: a decode, or a batch
// of them.
inline constexpr uint32_t kFewRows = 16;

// Bytes that a thread is going to read: rows of them, `stride` apart.
struct ReadRange {
  const std::byte* first = nullptr;
  uint32_t row_bytes = 0;
  uint32_t rows = 0;
  uint32_t stride = 0;
};

// Attention of the query heads of one KV head, for some query rows.
struct AttentionTask {
  AttentionShape shape;
  uint64_t first_position = 0;  // of row 0 of q
  // [call_rows], in place of first_position + row, for rows that each see all tokens of the pages
  // (shape.window is 0); or null.
  const uint64_t* positions = nullptr;
  const PageTiles* pages = nullptr;
  uint32_t page_count = 0;
  const RopeTable* rope = nullptr;
  const KvBasis* basis = nullptr;  // of this KV head; null: the pages hold plain keys and values
  // A position at or before all pages, the same for all rows that may share a text: where keys of
  // expanded pages are turned to.
  uint64_t frame = 0;
  const float* q = nullptr;  // [rows, q_heads * head_dim] of the whole call
  uint32_t q_stride = 0;
  float* out = nullptr;
  uint32_t out_stride = 0;
  uint32_t kv_head = 0;
  uint32_t call_rows = 0;  // of the whole call; few_rows is about these
  uint32_t first_row = 0;
  uint32_t rows = 0;             // at most AttentionRowsMax(shape)
  std::byte* scratch = nullptr;  // AttentionScratchBytes(shape), 64-byte aligned, one per thread
  uint32_t span_pages = kSpanPages;  // a multiple of kPartPages: merge_order.h
  // A hint: what the thread reads behind a part of these pages, for as long as it multiplies them.
  const ReadRange* read_next = nullptr;
  uint32_t read_ranges = 0;
};

// Whether a task takes its pages out of their coordinates before it multiplies with them: what
// costs many rows less than bringing each of them into those of every page. Of rows that see a
// window, the first page, and with it a frame, would depend on their neighbours.
inline bool ExpandsPages(const AttentionTask& task) noexcept {
  return task.basis != nullptr && task.call_rows > kFewRows && task.shape.window == 0;
}

// Pages in the coordinates of a basis as bf16 tiles of plain keys and values.
struct ExpandTask {
  const PageTiles* pages = nullptr;
  uint32_t page_count = 0;
  uint32_t kv_head = 0;
  uint32_t head_dim = 0;
  const RopeTable* rope = nullptr;
  const KvBasis* basis = nullptr;  // of this KV head
  uint64_t frame = 0;              // at or before all pages: where keys are turned to
  // Page i: keys at out + i * out_stride, values ExpandedTileBytes behind them.
  std::byte* out = nullptr;
  uint64_t out_stride = 0;
  std::byte* scratch = nullptr;  // ExpandScratchBytes, 64-byte aligned, one per thread
};
constexpr uint64_t ExpandedTileBytes(uint32_t head_dim) noexcept {
  return uint64_t{kBlockTokens} * head_dim * 2;
}
// Levels in bytes, in bf16 and multiplied; scales, means and what is added to each dim; two
// matrices in two terms each.
constexpr uint64_t ExpandScratchBytes(uint32_t head_dim) noexcept {
  return uint64_t{kBlockTokens} * head_dim * 7 + (uint64_t{kBlockTokens} + 2 * head_dim) * 4 +
         uint64_t{head_dim} * head_dim * 8;
}

// Query rows of one task: stacked with the heads that share a KV head they fill the tiles.
constexpr uint32_t AttentionRowsMax(const AttentionShape& shape) noexcept {
  const uint32_t group = shape.q_heads / shape.kv_heads;
  return group >= 96 ? 1 : 96 / group;
}
constexpr uint32_t AttentionParts(uint32_t page_count) noexcept {
  return (page_count + kPartPages - 1) / kPartPages;
}
// Floats of one part's state: per stacked row the running maximum, the sum, and head_dim weighted
// values.
constexpr uint64_t AttentionStateFloats(const AttentionShape& shape, uint32_t rows) noexcept {
  return uint64_t{rows} * (shape.q_heads / shape.kv_heads) * (shape.head_dim + 2);
}
// An expanded tile, an unpacked one, scales and means of two; queries (turned, and in the basis),
// scores and weights of the stacked rows; a part's state and those of a fold; a page out of its
// coordinates. The same for all tables.
constexpr uint64_t AttentionScratchBytes(const AttentionShape& shape) noexcept {
  const uint64_t group = shape.q_heads / shape.kv_heads;
  const uint64_t stacked = (AttentionRowsMax(shape) * group + 15) / 16 * 16;
  const uint64_t tile = uint64_t{kBlockTokens} * shape.head_dim * 5;
  const uint64_t columns = (2 * uint64_t{kBlockTokens} + 2 * uint64_t{shape.head_dim}) * 4;
  const uint64_t states = (kMergeDepth - 1) * (uint64_t{shape.head_dim} + 2) * 4;
  const uint64_t row = (uint64_t{shape.head_dim} * 5 + 2 * uint64_t{kBlockTokens} + 6) * 4 + states;
  const uint64_t page = ExpandScratchBytes(shape.head_dim) + 2 * ExpandedTileBytes(shape.head_dim);
  return tile + columns + stacked * row + 1024 + page;
}

// One tile of a cq codec from rows.rows rows, slots 0 .. of it: the bytes that
// reference/coded_tile_codec.h specifies.
struct EncodeTask {
  std::byte* tile = nullptr;  // KvTileBytes
  KvCodec codec = KvCodec::kCq4;
  bool is_key = false;
  KvRows rows;
  std::byte* scratch = nullptr;  // encode_scratch_bytes, 64-byte aligned, one per thread
};

struct CpuKernels {
  std::string_view name;
  // Rows and panels that fill this table's tiles: tasks in their multiples waste nothing.
  uint32_t row_multiple = 1;
  uint32_t panel_multiple = 1;
  uint32_t row_panel_multiple = 1;  // panels, for a product of a single row
  // Calls of at most so many rows (call_rows) may use other arithmetic than those of more: bits
  // agree among the former and among the latter. 0: all agree.
  uint32_t few_rows = 0;
  // Bytes of all rows of a call in the form matmul wants them; 0: it takes x itself.
  uint64_t (*prepared_bytes)(uint32_t call_rows, uint32_t cols) noexcept = nullptr;
  void (*prepare_rows)(std::byte* prepared, const float* x, uint32_t x_stride, uint32_t cols,
                       uint32_t call_rows, uint32_t first_row, uint32_t rows) noexcept = nullptr;
  uint64_t (*matmul_scratch_bytes)() noexcept = nullptr;
  void (*matmul)(const MatMulTask& task) noexcept = nullptr;
  // All parts of the task, merged, into out.
  void (*attend)(const AttentionTask& task) noexcept = nullptr;
  // Part `part` into a state of AttentionStateFloats.
  void (*attend_part)(const AttentionTask& task, uint32_t part, float* state) noexcept = nullptr;
  // into = into (+) parts [first, end) of the task, in order.
  void (*attend_parts)(const AttentionTask& task, uint32_t first, uint32_t end,
                       float* into) noexcept = nullptr;
  // Pages as a task that ExpandsPages takes them; one that comes as it lies, the task expands by
  // itself: the same bits.
  void (*expand_pages)(const ExpandTask& task) noexcept = nullptr;
  // Merges the states of all parts, [AttentionParts][AttentionStateFloats], in the order of
  // merge_order.h, into out.
  void (*merge_parts)(const AttentionTask& task, const float* states) noexcept = nullptr;
  // into = into (+) part, states of so many rows of one KV head; and the end of a task whose state
  // is whole, into out.
  void (*merge_state)(const AttentionShape& shape, uint32_t rows, float* into,
                      const float* part) noexcept = nullptr;
  void (*write_state)(const AttentionTask& task, const float* state) noexcept = nullptr;
  // y[rows][head_dim], the rows in their coordinates; and tiles of them. The same bits from all
  // tables.
  void (*to_coordinates)(float* y, const KvRows& rows) noexcept = nullptr;
  void (*encode_tile)(const EncodeTask& task) noexcept = nullptr;
  uint64_t (*encode_scratch_bytes)(uint32_t head_dim) noexcept = nullptr;
  // The products of queries with an index tile: the bits of reference/index_tile_codec.h; masses
  // are the same on all tables, and within their precision of the reference.
  void (*scan_index)(const IndexScanTask& task) noexcept = nullptr;
  void (*rms_norm)(MatrixView out, MatrixView x, const float* gain,
                   float epsilon) noexcept = nullptr;
  void (*swiglu)(MatrixView out, MatrixView gate_up) noexcept = nullptr;
};

// The tables that this processor can run, slowest first. Empty without AVX2.
std::span<const CpuKernels* const> SupportedCpuKernels(const CpuFeatures& features) noexcept;
// The fastest supported table that `isa` allows: "auto", "avx512" (the best of its family), or a
// table by its name. RETURNS nullptr if the name is unknown or the processor lacks it.
const CpuKernels* SelectCpuKernels(const CpuFeatures& features, std::string_view isa) noexcept;

}  // namespace corpusd
