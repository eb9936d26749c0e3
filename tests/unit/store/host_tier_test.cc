#include "store/host_tier.h"

#include <gtest/gtest.h>

#include "store/base/clock.h"
#include "store/eviction_policy.h"
#include "tests/unit/store/store_fixture.h"

namespace corpusd {
namespace {

TEST(EvictionPolicy, OldestGroupFirstAndItsTailFirst) {
  const std::vector<EvictionCandidate> candidates = {{5, 0, 10, false, false},
                                                     {5, 1, 10, false, false},
                                                     {9, 7, 10, false, false},
                                                     {5, 2, 10, true, false}};
  // Not 3: leased; 2 last: used later.
  EXPECT_EQ(ChooseVictims(candidates, 1), (std::vector<size_t>{1}));
  EXPECT_EQ(ChooseVictims(candidates, 11), (std::vector<size_t>{1, 0}));
  EXPECT_EQ(ChooseVictims(candidates, 30), (std::vector<size_t>{1, 0, 2}));
}

TEST(EvictionPolicy, NothingLeavesWhereThatWouldNotBeEnough) {
  const std::vector<EvictionCandidate> candidates = {
      {1, 0, 10, true, false}, {1, 1, 10, false, true}, {1, 2, 10, false, false}};
  EXPECT_EQ(ChooseVictims(candidates, 10), (std::vector<size_t>{2}));
  EXPECT_TRUE(ChooseVictims(candidates, 11).empty());
  EXPECT_TRUE(ChooseVictims({}, 1).empty());
}

class HostTierTest : public ::testing::Test {
 protected:
  BlockRef Put(HostTier& tier, const Digest& digest, const Digest& group, uint64_t position) {
    const HostTier::Request request{digest, 1, kTestBlockBytes};
    auto blocks = tier.Reserve({&request, 1});
    EXPECT_TRUE(blocks.ok()) << blocks.status().ToString();
    return tier.Insert(std::move(blocks->front()), {group, position});
  }
  const TestCorpus a_ = MakeCorpus(10, 6);
  const TestCorpus b_ = MakeCorpus(11, 6);
};

TEST_F(HostTierTest, TheCapIsHardAndTheTailOfTheOldestGoes) {
  HostTier tier(4 * kTestBlockBytes);
  tier.NoteUse(std::span(a_.chain).first(3), 0);
  for (size_t i = 0; i < 3; ++i) Put(tier, a_.chain[i], a_.chain[0], i);
  Put(tier, b_.chain[0], b_.chain[0], 0);
  Put(tier, b_.chain[1], b_.chain[0], 1);
  EXPECT_EQ(tier.used_bytes(), 4 * kTestBlockBytes);
  EXPECT_TRUE(tier.Contains(a_.chain[0]));
  EXPECT_TRUE(tier.Contains(a_.chain[1]));
  EXPECT_FALSE(tier.Contains(a_.chain[2]));
}

TEST_F(HostTierTest, LeasesHoldTheirBytesAndAFullTierSaysSo) {
  HostTier tier(2 * kTestBlockBytes);
  const BlockRef first = Put(tier, a_.chain[0], a_.chain[0], 0);
  const BlockRef second = Put(tier, a_.chain[1], a_.chain[0], 1);
  const HostTier::Request request{a_.chain[2], 1, kTestBlockBytes};
  const auto third = tier.Reserve({&request, 1});
  EXPECT_EQ(tier.ReserveFree(request), nullptr);
  EXPECT_EQ(third.status().code(), StatusCode::kResourceExhausted);
  EXPECT_NE(third.status().message().find("128.0 KiB of 128.0 KiB"), std::string::npos)
      << third.status().message();
  EXPECT_TRUE(first.valid() && second.valid());
}

TEST_F(HostTierTest, AnErasedBlockLivesAsLongAsItsLease) {
  HostTier tier(2 * kTestBlockBytes);
  BlockRef lease = Put(tier, a_.chain[0], a_.chain[0], 0);
  tier.Erase(a_.chain[0]);
  EXPECT_FALSE(tier.Contains(a_.chain[0]));
  EXPECT_EQ(lease.bytes().size(), kTestBlockBytes);
  EXPECT_EQ(tier.used_bytes(), kTestBlockBytes);
  lease = {};
  EXPECT_EQ(tier.used_bytes(), 0u);
}

TEST_F(HostTierTest, ManyAreReservedTogetherOrNotAtAll) {
  HostTier tier(4 * kTestBlockBytes);
  BlockRef lease = Put(tier, a_.chain[0], a_.chain[0], 0);
  Put(tier, a_.chain[1], a_.chain[0], 1);
  const std::vector<HostTier::Request> four(4, {b_.chain[0], 1, kTestBlockBytes});
  EXPECT_EQ(tier.Reserve(four).status().code(), StatusCode::kResourceExhausted);
  EXPECT_TRUE(tier.Contains(a_.chain[1])) << "evicted for a reservation that failed";
  EXPECT_EQ(tier.used_bytes(), 2 * kTestBlockBytes);
  lease = {};
  EXPECT_EQ(tier.Reserve(four)->size(), 4u);
  EXPECT_EQ(tier.used_bytes(), 0u) << "what was reserved and not inserted is free again";
  const HostTier::Request huge{b_.chain[0], 1, 5 * kTestBlockBytes};
  EXPECT_EQ(tier.Reserve({&huge, 1}).status().code(), StatusCode::kResourceExhausted);
}

TEST_F(HostTierTest, PaddingToPagesIsCharged) {
  HostTier tier(2 * 4096);
  const HostTier::Request request{a_.chain[0], 1, 4097};
  const auto block = tier.ReserveFree(request);
  ASSERT_NE(block, nullptr);
  EXPECT_EQ(block->bytes().size(), 4097u);
  EXPECT_EQ(tier.used_bytes(), 8192u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(block->bytes().data()) % 64, 0u);
}

TEST_F(HostTierTest, PinnedBlocksStayUntilThePinEnds) {
  HostTier tier(2 * kTestBlockBytes);
  Put(tier, a_.chain[0], a_.chain[0], 0);
  tier.SetPins({{a_.chain[0], WallTimeMs() + 60'000}});
  Put(tier, b_.chain[0], b_.chain[0], 0);
  Put(tier, b_.chain[1], b_.chain[0], 1);
  EXPECT_TRUE(tier.Contains(a_.chain[0]));
  EXPECT_EQ(tier.PinnedBytes(), kTestBlockBytes);
  AdvanceWallTimeForTests(60'001);
  EXPECT_EQ(tier.PinnedBytes(), 0u);
  Put(tier, b_.chain[0], b_.chain[0], 0);
  EXPECT_FALSE(tier.Contains(a_.chain[0]));
  AdvanceWallTimeForTests(-60'001);
}

TEST_F(HostTierTest, DropCountsAndLeavesLeases) {
  HostTier tier(4 * kTestBlockBytes);
  const BlockRef lease = Put(tier, a_.chain[0], a_.chain[0], 0);
  Put(tier, a_.chain[1], a_.chain[0], 1);
  EXPECT_EQ(tier.Drop(a_.chain, /*dry_run=*/true), std::pair(uint64_t{1}, kTestBlockBytes));
  EXPECT_TRUE(tier.Contains(a_.chain[1]));
  EXPECT_EQ(tier.Drop(a_.chain, /*dry_run=*/false), std::pair(uint64_t{1}, kTestBlockBytes));
  EXPECT_FALSE(tier.Contains(a_.chain[1]));
  EXPECT_TRUE(tier.Contains(a_.chain[0]));
}

}  // namespace
}  // namespace corpusd
