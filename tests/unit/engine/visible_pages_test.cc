// Which pages queries on chunked and windowed layers are given.
#include "engine/kv/visible_pages.h"

#include <gtest/gtest.h>

#include <set>

namespace corpusd {
namespace {

// Exact first tokens, a history that hides them, and own pages, as a coded corpus has them.
struct Pages {
  KvFormat bf16, coded;
  std::vector<KvPage> sinks = {{.first_position = 0, .tokens = 4}};
  std::vector<KvPage> history;
  std::vector<KvPage> own;
  std::vector<KvPageList> lists;

  Pages() {
    for (uint64_t p = 0; p < 6 * 128; p += 128) {
      history.push_back({.first_position = p, .tokens = 128, .hidden = p == 0 ? 4U : 0U});
    }
    own = {{.first_position = 768, .tokens = 128}, {.first_position = 896, .tokens = 5}};
    lists = {{&bf16, sinks}, {&coded, history}, {&bf16, own}};
  }
};

std::set<uint64_t> Seen(std::span<const KvPageList> lists) {
  std::set<uint64_t> positions;
  for (const KvPageList& list : lists) {
    for (const KvPage& page : list.pages) {
      for (uint32_t slot = page.hidden; slot < page.tokens; ++slot) {
        EXPECT_TRUE(positions.insert(page.first_position + slot).second);
      }
    }
  }
  return positions;
}

size_t CountPages(std::span<const KvPageList> lists) {
  size_t count = 0;
  for (const KvPageList& list : lists) count += list.pages.size();
  return count;
}

TEST(VisiblePages, EveryPositionFromTheFirstOnAndNoOther) {
  const Pages pages;
  for (uint64_t first = 0; first < 905; ++first) {
    for (const size_t multiple : {1, 4}) {
      const VisiblePages visible(pages.lists, first, multiple);
      const std::set<uint64_t> seen = Seen(visible.lists());
      ASSERT_EQ(seen.size(), 901 - std::min<uint64_t>(first, 901)) << first;
      if (!seen.empty()) {
        ASSERT_EQ(*seen.begin(), first);
      }
      const size_t dropped = CountPages(pages.lists) - CountPages(visible.lists());
      ASSERT_EQ(dropped % multiple, 0U) << first;
      for (const KvPageList& list : visible.lists()) {
        const uint64_t position = list.pages.front().first_position;
        const bool coded = position < 768 && list.pages.front().tokens != 4;
        ASSERT_EQ(list.format, coded ? &pages.coded : &pages.bf16) << first;
      }
    }
  }
}

TEST(VisiblePages, RowsAreCutWhereChunksBegin) {
  const Pages pages;
  const auto runs = CutAtChunks(pages.lists, 190, 120, 100);
  ASSERT_EQ(runs.size(), 3U);
  const std::vector<std::vector<uint64_t>> expected = {
      {0, 10, 100}, {10, 100, 200}, {110, 10, 300}};
  for (size_t i = 0; i < runs.size(); ++i) {
    EXPECT_EQ(runs[i].first_row, expected[i][0]);
    EXPECT_EQ(runs[i].rows, expected[i][1]);
    EXPECT_EQ(*Seen(runs[i].pages.lists()).begin(), expected[i][2]);
  }
  EXPECT_EQ(CutAtChunks(pages.lists, 190, 10, 100).size(), 1U);
  EXPECT_EQ(CutAtChunks(pages.lists, 200, 100, 100).size(), 1U);
}

}  // namespace
}  // namespace corpusd
