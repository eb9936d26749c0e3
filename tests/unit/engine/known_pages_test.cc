// What a page table keeps of long lists: the same pages for the same list, what a grown list begins
// with, and nothing of pages that became others.
#include "engine/backend/cuda/known_pages.h"

#include <gtest/gtest.h>

#include <set>

#include "kernels/kv_format.h"

namespace corpusd {
namespace {

class KnownPagesTest : public testing::Test {
 protected:
  // Whole pages whose bytes lie at `base` + number.
  static std::vector<KvPage> Pages(size_t count, uintptr_t base) {
    std::vector<KvPage> pages;
    for (size_t i = 0; i < count; ++i) {
      pages.push_back({reinterpret_cast<const std::byte*>(base + i), i * kBlockTokens, kBlockTokens,
                       /*hidden=*/0});
    }
    return pages;
  }

  // As a page table does: RETURNS how many pages were not known.
  size_t Look(const std::vector<KvPage>& pages, int64_t first_seen = 0) {
    const KvPageList list{&format_, pages};
    const auto known = known_.Find(list, first_seen);
    std::vector<cuda::DevicePage> all(known.begin(), known.end());
    for (size_t i = 0; i < pages.size(); ++i) {
      cuda::DevicePage page;
      page.bytes = reinterpret_cast<const uint8_t*>(pages[i].bytes);
      page.first_position = static_cast<int64_t>(pages[i].first_position);
      if (i < known.size()) {
        EXPECT_EQ(all[i].bytes, page.bytes) << i;
        EXPECT_EQ(all[i].first_position, page.first_position) << i;
      } else {
        all.push_back(page);
      }
    }
    const size_t looked_at = pages.size() - known.size();
    known_.Keep(list, first_seen, all);
    return looked_at;
  }

  KvFormat format_ = [] {
    KvFormat format;
    format.layers = 2;
    format.kv_heads = 1;
    format.head_dim = 64;
    return format;
  }();
  KnownPages known_;
};

TEST_F(KnownPagesTest, AGrownListIsLookedAtFromWhereItGrew) {
  EXPECT_EQ(Look(Pages(1000, 1 << 20)), 1000u);
  for (int layer = 0; layer < 3; ++layer) EXPECT_EQ(Look(Pages(1000, 1 << 20)), 0u);
  known_.BeginStep();
  EXPECT_EQ(Look(Pages(1000, 1 << 20)), 0u);
  EXPECT_EQ(Look(Pages(1004, 1 << 20)), 4u);
  EXPECT_EQ(Look(Pages(1004, 1 << 20), /*first_seen=*/300), 1004u) << "other pages are hidden";
  EXPECT_EQ(Look(Pages(1004, 2 << 20)), 1004u);
  EXPECT_EQ(known_.lists(), 3u);
  known_.Clear();
  EXPECT_EQ(Look(Pages(1004, 1 << 20)), 1004u);
}

TEST_F(KnownPagesTest, PagesThatMovedSinceAreLookedAtAgain) {
  auto pages = Pages(1000, 1 << 20);
  Look(pages);
  for (int call = 0; call < 5; ++call) {
    known_.BeginStep();
    // The last 160 are stored now, and lie where the others do; 160 more were computed.
    const size_t stored = pages.size();
    const auto moved = Pages(stored, 1 << 20), computed = Pages(stored + 160, (3 + call) << 20);
    pages = moved;
    pages.insert(pages.end(), computed.begin() + static_cast<ptrdiff_t>(stored), computed.end());
    EXPECT_EQ(Look(pages), call == 0 ? 160u : 320u) << call;
    EXPECT_EQ(Look(pages), 0u) << "of the next layer";
    EXPECT_EQ(known_.lists(), 1u);
  }
}

TEST_F(KnownPagesTest, OtherListsStayApart) {
  const auto first = Pages(3000, 1 << 20);
  auto second = first;  // the same beginning
  for (size_t i = 500; i < second.size(); ++i) second[i].bytes += 1 << 20;
  auto hidden = first;
  hidden[0].hidden = 4;
  for (int round = 0; round < 3; ++round) {
    EXPECT_EQ(Look(first), round == 0 ? 3000u : 0u);
    EXPECT_EQ(Look(second), round == 0 ? 3000u : 0u);
    EXPECT_EQ(Look(hidden), round == 0 ? 3000u : 0u);
    known_.BeginStep();
  }
  EXPECT_EQ(Look({first.begin(), first.begin() + 600}), 600u) << "much shorter";
}

TEST_F(KnownPagesTest, ShortListsAndOldOnesAreNotKept) {
  EXPECT_EQ(Look(Pages(255, 1 << 20)), 255u);
  EXPECT_EQ(Look(Pages(255, 1 << 20)), 255u);
  EXPECT_EQ(known_.lists(), 0u);
  for (uintptr_t list = 1; list <= 30; ++list) Look(Pages(300, list << 20));
  EXPECT_LE(known_.lists(), 20u);
  EXPECT_EQ(Look(Pages(300, 30 << 20)), 0u);
  EXPECT_EQ(Look(Pages(300, 1 << 20)), 300u);
}

}  // namespace
}  // namespace corpusd
