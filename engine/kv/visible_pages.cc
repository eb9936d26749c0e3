#include "engine/kv/visible_pages.h"

#include <algorithm>

#include "store/base/check.h"

namespace corpusd {

namespace {

// Pages of a list that end at or before `first`: they are its first ones.
size_t PagesBefore(const KvPageList& list, uint64_t first) {
  const auto end = std::partition_point(
      list.pages.begin(), list.pages.end(),
      [&](const KvPage& page) { return page.first_position + page.tokens <= first; });
  return static_cast<size_t>(end - list.pages.begin());
}

// Absent pages are the first ones, so the first page of which something is seen tells.
void CheckPresent(std::span<const KvPageList> lists) {
  for (const KvPageList& list : lists) {
    for (const KvPage& page : list.pages) {
      if (page.hidden >= page.tokens) continue;
      CHECK(page.bytes != AbsentPage()) << "position " << page.first_position << " is not there";
      return;
    }
  }
}

}  // namespace

const std::byte* AbsentPage() {
  alignas(kTileAlignment) static constexpr std::byte kNothing[kTileAlignment] = {};
  return kNothing;
}

VisiblePages::VisiblePages(std::span<const KvPageList> lists, uint64_t first, size_t multiple) {
  size_t before = 0;
  for (const KvPageList& list : lists) before += PagesBefore(list, first);
  size_t dropped = before / multiple * multiple;
  // What stays hidden as a whole, and of each list one page at most that straddles `first`.
  cut_.reserve(before - dropped + lists.size());
  for (const KvPageList& list : lists) {
    const size_t drop = std::min(dropped, list.pages.size());
    dropped -= drop;
    auto rest = list.pages.subspan(drop);
    const size_t cut_begin = cut_.size();
    while (!rest.empty() && rest.front().first_position < first) {
      KvPage page = rest.front();
      const uint64_t hidden = std::min<uint64_t>(first - page.first_position, page.tokens);
      page.hidden = std::max(page.hidden, static_cast<uint32_t>(hidden));
      cut_.push_back(page);
      rest = rest.subspan(1);
    }
    if (cut_.size() > cut_begin) {
      lists_.push_back({list.format, std::span(cut_).subspan(cut_begin)});
    }
    if (!rest.empty()) lists_.push_back({list.format, rest});
  }
  CheckPresent(lists_);
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
