// engine/kv/visible_pages.h -- which pages of a sequence a run of queries sees on a layer that
// attends within chunks or a window. Views the sequence's lists; valid until they change. One
// thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/shapes.h"

namespace corpusd {

// Stands for a page that is not there, since no layer of its part can see it any more. Not to be
// read; VisiblePages refuses to show it.
const std::byte* AbsentPage();

// The pages of `lists` without what lies before position `first`; order and contents as they were.
// Of pages that lie before it as a whole, some may stay, all hidden: dropped is a multiple of
// `multiple` pages; kPartPages keeps the parts that kernels cut the list into.
class VisiblePages {
 public:
  VisiblePages(std::span<const KvPageList> lists, uint64_t first, size_t multiple = 1);
  VisiblePages(VisiblePages&&) noexcept = default;
  VisiblePages& operator=(VisiblePages&&) noexcept = default;
  VisiblePages(const VisiblePages&) = delete;
  VisiblePages& operator=(const VisiblePages&) = delete;

  std::span<const KvPageList> lists() const { return lists_; }

 private:
  std::vector<KvPage> cut_;  // pages of which a part at most is seen; never grows after the start
  std::vector<KvPageList> lists_;
};

// Rows [first_row, first_row + rows) of a call: neighbouring queries that see the same pages.
struct AttentionRun {
  uint32_t first_row = 0;
  uint32_t rows = 0;
  VisiblePages pages;
};

// Queries at positions [first_position, first_position + rows) over chunks of chunk_tokens.
std::vector<AttentionRun> CutAtChunks(std::span<const KvPageList> lists, uint64_t first_position,
                                      uint32_t rows, uint32_t chunk_tokens);

}  // namespace corpusd
