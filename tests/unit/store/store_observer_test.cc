// What a store tells its observer: every block that comes, goes or breaks, once, and nothing twice.
#include "store/store_observer.h"

#include <gmock/gmock.h>

#include <map>
#include <mutex>

#include "tests/unit/store/store_fixture.h"

namespace corpusd {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class Counter : public StoreObserver {
 public:
  struct Gone {
    uint64_t blocks = 0, bytes = 0;
    bool operator==(const Gone&) const = default;
  };
  void OnPublished(uint64_t blocks, uint64_t bytes) override {
    const std::lock_guard lock(mutex_);
    published.blocks += blocks;
    published.bytes += bytes;
  }
  void OnEvicted(TierKind tier, EvictionReason reason, uint64_t blocks, uint64_t bytes) override {
    const std::lock_guard lock(mutex_);
    Gone& gone = evicted[{tier, reason}];
    gone.blocks += blocks;
    gone.bytes += bytes;
  }
  void OnDamaged(TierKind tier) override {
    const std::lock_guard lock(mutex_);
    damaged.push_back(tier);
  }

  Gone published;
  std::map<std::pair<TierKind, EvictionReason>, Gone> evicted;
  std::vector<TierKind> damaged;

 private:
  std::mutex mutex_;
};

class StoreObserverTest : public StoreFixture {
 protected:
  void SetUp() override {
    options_.observer = &counter_;
    StoreFixture::SetUp();
  }

  static Counter::Gone Blocks(uint64_t blocks) { return {blocks, blocks * kTestBlockBytes}; }
  Counter::Gone Evicted(TierKind tier, EvictionReason reason) {
    return counter_.evicted[{tier, reason}];
  }

  Counter counter_;
};

TEST_F(StoreObserverTest, BlocksAreCountedWhenTheyAreNew) {
  Ingest("a", MakeCorpus(1, 6));
  EXPECT_EQ(counter_.published, Blocks(6));
  Ingest("b", MakeCorpus(2, 6, /*shared_blocks=*/0));
  EXPECT_EQ(counter_.published, Blocks(12));
  // The same corpus again shares every block.
  Ingest("c", MakeCorpus(1, 6));
  EXPECT_EQ(counter_.published, Blocks(12));
  EXPECT_THAT(counter_.evicted, IsEmpty());
}

TEST_F(StoreObserverTest, LeavingOnRequestIsCountedByTierAndADryRunIsNot) {
  const TestCorpus corpus = MakeCorpus(1, 5);
  Ingest("a", corpus);
  ASSERT_TRUE(store_->Evict("a", TierKind::kHost, /*dry_run=*/true).ok());
  ASSERT_TRUE(store_->Evict("a", TierKind::kDisk, /*dry_run=*/true).ok());
  EXPECT_THAT(counter_.evicted, IsEmpty());
  ASSERT_TRUE(store_->Evict("a", TierKind::kHost, false).ok());
  EXPECT_EQ(Evicted(TierKind::kHost, EvictionReason::kAsked), Blocks(5));
  ExpectWhole(corpus.chain);  // back in memory
  ASSERT_TRUE(store_->Evict("a", TierKind::kDisk, false).ok());
  EXPECT_EQ(Evicted(TierKind::kDisk, EvictionReason::kAsked), Blocks(5));
}

TEST_F(StoreObserverTest, ARemovedCorpusTakesOnlyWhatNobodyShares) {
  Ingest("a", MakeCorpus(1, 6, /*shared_blocks=*/4));
  Ingest("b", MakeCorpus(2, 6, /*shared_blocks=*/4));
  ASSERT_TRUE(store_->RemoveCorpus("a").ok());
  EXPECT_EQ(Evicted(TierKind::kDisk, EvictionReason::kRemoved), Blocks(2));
  ASSERT_TRUE(store_->RemoveCorpus("b").ok());
  EXPECT_EQ(Evicted(TierKind::kDisk, EvictionReason::kRemoved), Blocks(8));
}

TEST_F(StoreObserverTest, MemoryThatIsFullGivesUpBlocksForRoom) {
  // 16 blocks fit; what is read last drives out what was there.
  const TestCorpus first = MakeCorpus(1, 16), second = MakeCorpus(2, 10);
  Ingest("a", first);
  Ingest("b", second);
  ExpectWhole(second.chain);
  const Counter::Gone gone = Evicted(TierKind::kHost, EvictionReason::kRoom);
  EXPECT_GE(gone.blocks, 10u);
  EXPECT_EQ(gone.bytes, gone.blocks * kTestBlockBytes);
}

TEST_F(StoreObserverTest, ADamagedBlockIsToldOnce) {
  const TestCorpus corpus = MakeCorpus(1, 4);
  Ingest("a", corpus);
  ASSERT_TRUE(FlipByteOf(corpus.chain[2]));
  Reopen();
  for (int i = 0; i < 3; ++i) {
    FetchStats stats;
    ASSERT_TRUE(store_->Fetch(corpus.chain, &stats).ok());
  }
  EXPECT_THAT(counter_.damaged, ElementsAre(TierKind::kDisk));
}

}  // namespace
}  // namespace corpusd
