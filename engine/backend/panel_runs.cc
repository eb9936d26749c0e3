#include "engine/backend/panel_runs.h"

#include <algorithm>

namespace corpusd {
namespace {

// Items a thread should find in a product, so that the last one to finish is not waited for long.
constexpr uint32_t kItemsPerThread = 8;

uint32_t CeilDiv(uint32_t a, uint32_t b) { return (a + b - 1) / b; }

uint32_t CountPanels(const CpuWeight& weight) {
  uint32_t total = 0;
  for (const CpuWeight::Segment& segment : weight.segments()) total += segment.packed.panels();
  return total;
}

}  // namespace

void PanelRuns::Add(CpuWeight& weight) {
  weight.set_order(static_cast<uint32_t>(extents_.size()));
  const PackedWeight& first = weight.segments().front().packed;
  extents_.push_back({first.data, first.panel_bytes, first.panels(), CountPanels(weight)});
}

// Panels of one item of a product with x_rows rows: some items for every thread, in multiples that
// suit the table.
uint32_t PanelRuns::PanelsOfRun(uint32_t total, uint32_t x_rows) const {
  const uint32_t row_blocks = CeilDiv(x_rows, kRowBlock);
  const uint32_t wanted = std::max(1u, CeilDiv(pool_.threads() * kItemsPerThread, row_blocks));
  const uint32_t multiple = x_rows == 1 ? kernels_.row_panel_multiple : kernels_.panel_multiple;
  const uint32_t each = total / wanted / multiple * multiple;
  if (each > 0) return each;
  // Whole tiles beat an even share, as long as there are some for every thread.
  return total / multiple * row_blocks >= 2 * pool_.threads() ? multiple : 1;
}

void PanelRuns::Cut(const CpuWeight& weight, uint32_t x_rows) {
  runs_.clear();
  const uint32_t each = PanelsOfRun(CountPanels(weight), x_rows);
  for (const CpuWeight::Segment& segment : weight.segments()) {
    const uint32_t panels = segment.packed.panels();
    for (uint32_t p = 0; p < panels; p += each) {
      runs_.push_back({&segment, p, std::min(each, panels - p), nullptr});
    }
  }
}

void PanelRuns::Link(uint32_t order, uint32_t x_rows) {
  const Extent& next = extents_[(order + 1) % extents_.size()];
  const uint32_t each = PanelsOfRun(next.total_panels, x_rows);
  const uint32_t next_runs = CeilDiv(next.total_panels, each);
  for (size_t i = 0; i + 1 < runs_.size(); ++i) {
    runs_[i].read_next = runs_[i + 1].segment->packed.panel(runs_[i + 1].first_panel);
  }
  for (unsigned thread = 0; thread < pool_.threads(); ++thread) {
    const uint32_t end = pool_.RangeBegin(static_cast<uint32_t>(runs_.size()), thread + 1);
    const uint32_t panel = pool_.RangeBegin(next_runs, thread) * each;
    if (end > 0 && panel < next.panels) {
      runs_[end - 1].read_next = next.data + panel * next.panel_bytes;
    }
  }
}

}  // namespace corpusd
