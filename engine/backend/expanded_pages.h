// engine/backend/expanded_pages.h -- the working copy of coded pages that a call of many rows
// attends to: plain keys and values in bf16, made once a call for all its rows and all heads of a
// group, a bounded piece of the text at a time. The memory grows to that bound and stays. Used by
// the CPU backend; one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/backend/host_buffer.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/thread_pool.h"

namespace corpusd {

class ExpandedPages {
 public:
  ExpandedPages(const CpuKernels& kernels, ThreadPool& pool) : kernels_(kernels), pool_(pool) {}

  // Pages that are copied together at most, of all KV heads: whole parts, and never more than a
  // span.
  static uint32_t PiecePages(const AttentionShape& shape, uint32_t span_pages);

  // Copies pages for tasks like `task`, of which the KV head alone differs. bases: [kv_heads]. The
  // result is valid until the next call.
  std::span<const PageTiles> Expand(std::span<const PageTiles> pages, const AttentionTask& task,
                                    const KvBasis* bases);

 private:
  const CpuKernels& kernels_;
  ThreadPool& pool_;
  std::unique_ptr<HostBuffer> copy_;
  std::unique_ptr<HostBuffer> scratch_;
  std::vector<PageTiles> tiles_;
};

}  // namespace corpusd
