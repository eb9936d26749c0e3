#include "engine/backend/cpu_weight.h"

#include <algorithm>

#include "store/base/check.h"

namespace corpusd {
namespace {

constexpr uint64_t kArenaBytes = uint64_t{16} << 20;
constexpr uint64_t kAlignment = 64;

// Whole panels per item: two threads never write one.
void PackSource(std::byte* target, PackedKind kind, uint32_t first_row, const WeightSource& source,
                ThreadPool& pool, std::vector<float>& scratch) {
  const uint64_t row_bytes = WeightRowBytes(source.type, source.cols);
  CHECK(source.bytes.size() >= row_bytes * source.rows) << source.name;
  const uint32_t end_row = first_row + source.rows;
  const uint32_t first_panel = first_row / kPanelOutputs;
  const uint32_t end_panel = (end_row + kPanelOutputs - 1) / kPanelOutputs;
  pool.ParallelFor(end_panel - first_panel, [&](uint32_t item, unsigned thread) {
    const uint32_t panel_row = (first_panel + item) * kPanelOutputs;
    const uint32_t end = std::min(end_row, panel_row + kPanelOutputs);
    for (uint32_t r = std::max(first_row, panel_row); r < end; ++r) {
      PackRow(target, kind, r, source.cols, source.type,
              source.bytes.data() + (r - first_row) * row_bytes,
              scratch.data() + size_t{source.cols} * thread);
    }
  });
}

}  // namespace

Result<WeightArena::Slice> WeightArena::Take(uint64_t bytes, std::string_view purpose) {
  if (memory_ == nullptr || bytes > memory_->bytes() - used_) {
    ASSIGN_OR_RETURN(auto memory, HostBuffer::Create(std::max(bytes, kArenaBytes), purpose));
    Slice slice{std::move(memory), nullptr};
    slice.data = slice.memory->data();
    // What is left of the older memory is given up; a large weight keeps its own.
    if (bytes < kArenaBytes) {
      memory_ = slice.memory;
      used_ = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    }
    return slice;
  }
  Slice slice{memory_, memory_->data() + used_};
  used_ = std::min(memory_->bytes(), used_ + (bytes + kAlignment - 1) / kAlignment * kAlignment);
  return slice;
}

Result<std::unique_ptr<CpuWeight>> CpuWeight::Load(std::span<const WeightSource> sources,
                                                   WeightArena& arena, ThreadPool& pool) {
  CHECK(!sources.empty());
  std::unique_ptr<CpuWeight> weight(new CpuWeight());
  weight->cols_ = sources[0].cols;
  std::vector<float> scratch(size_t{weight->cols_} * pool.threads());
  for (size_t i = 0; i < sources.size();) {
    Segment segment{.packed = {}, .first_row = weight->rows_};
    segment.packed.kind = PackedKindFor(sources[i].type);
    segment.packed.cols = weight->cols_;
    size_t end = i;
    for (; end < sources.size() && PackedKindFor(sources[end].type) == segment.packed.kind; ++end) {
      CHECK(sources[end].cols == weight->cols_) << sources[end].name;
      segment.packed.rows += sources[end].rows;
    }
    segment.packed.panel_bytes = PackedPanelBytes(segment.packed.kind, weight->cols_);
    const uint64_t bytes = segment.packed.panel_bytes * segment.packed.panels();
    ASSIGN_OR_RETURN(const auto slice, arena.Take(bytes, "weight " + sources[i].name));
    segment.packed.data = slice.data;
    uint32_t first_row = 0;
    for (; i < end; ++i) {
      PackSource(slice.data, segment.packed.kind, first_row, sources[i], pool, scratch);
      first_row += sources[i].rows;
    }
    weight->memory_.push_back(slice.memory);
    weight->rows_ += segment.packed.rows;
    weight->bytes_ += bytes;
    weight->segments_.push_back(segment);
  }
  return weight;
}

void CpuWeight::Unpack(float* out, uint32_t row) const {
  CHECK(row < rows_) << "row " << row << " of " << rows_;
  const Segment* segment = &segments_.front();
  for (const Segment& s : segments_) {
    if (row >= s.first_row) segment = &s;
  }
  UnpackRow(out, segment->packed, row - segment->first_row);
}

}  // namespace corpusd
