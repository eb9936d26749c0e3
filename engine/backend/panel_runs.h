// engine/backend/panel_runs.h -- how a product's weight is cut into runs of panels for the threads
// of a CPU, and what each reads behind its run. Arithmetic on addresses; reads no weight. One
// thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/backend/cpu_weight.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/thread_pool.h"

namespace corpusd {

// Rows that share one expansion of a weight panel: enough to make its cost a few percent, few
// enough that their activations (128 x 576 x 4 B = 288 KiB) stay in a core's L2 cache.
inline constexpr uint32_t kRowBlock = 128;

struct PanelRun {
  const CpuWeight::Segment* segment;
  uint32_t first_panel, panels;
  const std::byte* read_next;  // what the thread reads behind it, or null
};

class PanelRuns {
 public:
  PanelRuns(const CpuKernels& kernels, const ThreadPool& pool) : kernels_(kernels), pool_(pool) {}

  // Weights in the order in which they are loaded, which is that of a model; tells them their
  // place.
  void Add(CpuWeight& weight);
  // The runs of a product with x_rows rows.
  void Cut(const CpuWeight& weight, uint32_t x_rows);
  // Few rows read every weight at the speed of memory, which must not stand idle between two runs
  // or two products: each run learns what its thread reads next, at the end of the thread's share
  // the beginning of its share of the weight that was loaded next.
  void Link(uint32_t order, uint32_t x_rows);
  std::span<const PanelRun> runs() const { return runs_; }

 private:
  // Where a weight's first segment lies. Only ever a hint: the weight may be gone.
  struct Extent {
    const std::byte* data;
    uint64_t panel_bytes;
    uint32_t panels, total_panels;
  };
  uint32_t PanelsOfRun(uint32_t total, uint32_t x_rows) const;

  const CpuKernels& kernels_;
  const ThreadPool& pool_;
  std::vector<PanelRun> runs_;
  std::vector<Extent> extents_;  // of the weights, as they were loaded
};

}  // namespace corpusd
