// The eviction policy on plain items: what it keeps, of what traffic.
#include "store/eviction_policy.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "store/host_tier.h"
#include "tests/unit/store/store_fixture.h"

namespace corpusd {
namespace {

// A tier of blocks of one byte under the policy alone.
class Tier {
 public:
  explicit Tier(uint64_t capacity) : capacity_(capacity), policy_(capacity) {}

  // RETURNS how many leading blocks of the chain [first, first + blocks) were there.
  uint64_t Use(uint64_t first, uint64_t blocks, double weight = 1) {
    uint64_t leading = 0;
    while (leading < blocks && heats_.contains(first + leading)) ++leading;
    for (uint64_t i = 0; i < blocks; ++i) {
      const auto [it, fresh] = heats_.try_emplace(first + i);
      if (fresh) it->second = policy_.Recall(first + i).value_or(Heat{});
      it->second = policy_.Use({first + i, i, 1, weight, 0, 0}, it->second);
      positions_[first + i] = i;
      entered_ += fresh ? 1 : 0;
    }
    policy_.Enter(entered_);
    entered_ = 0;
    if (heats_.size() > capacity_) Evict(heats_.size() - capacity_);
    return leading;
  }
  uint64_t LeadingOf(uint64_t first) const {
    uint64_t leading = 0;
    while (heats_.contains(first + leading)) ++leading;
    return leading;
  }
  const EvictionPolicy& policy() const { return policy_; }

 private:
  void Evict(uint64_t blocks) {
    std::vector<EvictionCandidate> candidates;
    std::vector<uint64_t> items;
    for (const auto& [item, heat] : heats_) {
      candidates.push_back({policy_.Rank(heat), positions_[item], 1, false, false});
      items.push_back(item);
    }
    for (const size_t victim : ChooseVictims(candidates, blocks)) {
      policy_.Remember(items[victim], 1, heats_[items[victim]]);
      heats_.erase(items[victim]);
    }
  }

  const uint64_t capacity_;
  EvictionPolicy policy_;
  std::map<uint64_t, Heat> heats_;
  std::map<uint64_t, uint64_t> positions_;
  uint64_t entered_ = 0;
};

TEST(EvictionPolicy, APrefixOutlivesItsTail) {
  Tier tier(50);
  tier.Use(0, 30);
  tier.Use(1000, 30);
  EXPECT_EQ(tier.LeadingOf(1000), 30u);
  EXPECT_EQ(tier.LeadingOf(0), 20u) << "ten blocks of the older chain, from its end";
}

TEST(EvictionPolicy, OfTheHigherPriorityNoneLeavesBeforeTheLower) {
  const std::vector<EvictionCandidate> candidates = {
      {1, 0, 10, false, false, 1}, {9, 0, 10, false, false, 0}, {5, 0, 10, false, false, -1}};
  EXPECT_EQ(ChooseVictims(candidates, 30), (std::vector<size_t>{2, 1, 0}));
}

// kv-stores.md section 3: a scan of something larger than the tier flushes what is used every day.
TEST(EvictionPolicy, AScanLargerThanTheTierLeavesWhatIsUsedAgainAndAgain) {
  Tier tier(100);
  uint64_t hits = 0;
  for (uint64_t round = 0; round < 60; ++round) {
    const uint64_t found = tier.Use(0, 40);
    if (round >= 30) hits += found;
    tier.Use(10'000 * (round + 1), 250);
  }
  EXPECT_GE(hits, 30u * 40 * 9 / 10) << "half-life " << tier.policy().half_life();
}

// The old corpora are never asked again: a policy that counts only how often would keep them.
TEST(EvictionPolicy, WhatWasPopularLongAgoMakesRoom) {
  Tier tier(100);
  for (int round = 0; round < 200; ++round) tier.Use(0, 90);
  uint64_t hits = 0;
  for (uint64_t round = 0; round < 400; ++round) {
    for (uint64_t corpus = 0; corpus < 3; ++corpus) {
      hits +=
          round >= 300 ? tier.Use(1000 + 100 * corpus, 30) : 0 * tier.Use(1000 + 100 * corpus, 30);
    }
  }
  EXPECT_EQ(hits, 100u * 3 * 30);
}

TEST(EvictionPolicy, WhatIsDearToComputeStaysLongerThanWhatIsCheap) {
  Tier tier(60);
  for (int round = 0; round < 5; ++round) {
    tier.Use(0, 30, /*weight=*/8);
    tier.Use(1000, 30, /*weight=*/1);
  }
  EXPECT_EQ(tier.policy().half_life(), kHalfLives[0]) << "nothing tells the half-lives apart yet";
  Heat dear;
  Heat cheap;
  EvictionPolicy policy(60);
  dear = policy.Use({1, 0, 1, 8, 0, 0}, dear);
  cheap = policy.Use({2, 0, 1, 1, 0, 0}, cheap);
  EXPECT_GT(policy.Rank(dear), policy.Rank(cheap));
}

TEST(EvictionPolicy, UsesWithinTheCorrelatedPeriodCountOnce) {
  EvictionPolicy policy(100);
  Heat often;
  for (int64_t ms = 0; ms < 1000; ms += 100) often = policy.Use({1, 0, 1, 1, 5000, ms}, often);
  const Heat once = policy.Use({2, 0, 1, 1, 5000, 0}, {});
  EXPECT_EQ(policy.Rank(often), policy.Rank(once));
  policy.Enter(50);
  const Heat again = policy.Use({1, 0, 1, 1, 5000, 1000}, often);
  EXPECT_GT(policy.Rank(again), policy.Rank(often)) << "but it was used later";
}

TEST(EvictionPolicy, WhatLeftIsRememberedForSomeTurnovers) {
  EvictionPolicy policy(100);
  const Heat heat = policy.Use({1, 0, 10, 1, 0, 0}, {});
  for (uint64_t item = 1; item <= 1000; ++item) policy.Remember(item, 10, heat);
  uint64_t known = 0;
  for (uint64_t item = 1; item <= 1000; ++item) known += policy.Recall(item) ? 1 : 0;
  EXPECT_LE(known, EvictionPolicy::kHistoryTurnovers * 10 + 10);
  EXPECT_GE(known, EvictionPolicy::kHistoryTurnovers * 10);
  EXPECT_FALSE(policy.Recall(1000)) << "recalled once";
}

TEST(HostTierPolicy, ACorpusAskedAgainAndAgainStaysThroughFetchesOfOthers) {
  HostTier tier(8 * kTestBlockBytes);
  const TestCorpus hot = MakeCorpus(1, 4);
  uint64_t found = 0;
  for (uint32_t round = 0; round < 40; ++round) {
    const auto use = [&](const TestCorpus& corpus) {
      uint64_t hits = 0;
      tier.NoteUse(corpus.chain, 0);
      for (size_t i = 0; i < corpus.chain.size(); ++i) {
        if (tier.Contains(corpus.chain[i])) {
          ++hits;
          continue;
        }
        const HostTier::Request request{corpus.chain[i], 1, kTestBlockBytes};
        auto block = tier.Reserve({&request, 1});
        EXPECT_TRUE(block.ok());
        (void)tier.Insert(std::move(block->front()), {corpus.chain[0], i});
      }
      return hits;
    };
    const uint64_t hits = use(hot);
    if (round >= 20) found += hits;
    use(MakeCorpus(100 + round, 7));
  }
  EXPECT_GE(found, 20u * 4 * 9 / 10);
}

}  // namespace
}  // namespace corpusd
