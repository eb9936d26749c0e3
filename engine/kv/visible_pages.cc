#include "engine/kv/visible_pages.h"

#include <algorithm>

namespace corpusd {

VisiblePages::VisiblePages(std::span<const KvPageList> lists, uint64_t first) {
  cut_.reserve(lists.size());  // of each list one page at most straddles a position
  for (const KvPageList& list : lists) {
    const auto begin = std::partition_point(
        list.pages.begin(), list.pages.end(),
        [&](const KvPage& page) { return page.first_position + page.tokens <= first; });
    auto rest = list.pages.subspan(static_cast<size_t>(begin - list.pages.begin()));
    if (rest.empty()) continue;
    if (rest.front().first_position < first) {
      KvPage page = rest.front();
      page.hidden = std::max(page.hidden, static_cast<uint32_t>(first - page.first_position));
      cut_.push_back(page);
      lists_.push_back({list.format, std::span(&cut_.back(), 1)});
      rest = rest.subspan(1);
    }
    if (!rest.empty()) lists_.push_back({list.format, rest});
  }
}

std::vector<AttentionRun> CutAtChunks(std::span<const KvPageList> lists, uint64_t first_position,
                                      uint32_t rows, uint32_t chunk_tokens) {
  std::vector<AttentionRun> runs;
  for (uint32_t row = 0; row < rows;) {
    const uint64_t position = first_position + row;
    const uint64_t chunk_begin = position / chunk_tokens * chunk_tokens;
    const uint64_t left = chunk_begin + chunk_tokens - position;
    const auto count = static_cast<uint32_t>(std::min<uint64_t>(left, rows - row));
    runs.push_back({row, count, VisiblePages(lists, chunk_begin)});
    row += count;
  }
  return runs;
}

}  // namespace corpusd
