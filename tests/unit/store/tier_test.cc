// One set of tests over every tier: device (a fake one), host, disk.
#include <gtest/gtest.h>

#include <thread>

#include "tests/unit/store/tier_under_test.h"

namespace corpusd {
namespace {

struct TierCase {
  const char* name;
  TierMaker make;
};

class TierTest : public ::testing::TestWithParam<TierCase> {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "corpusd-tier-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    tier_ = GetParam().make(folder_);
    empty_bytes_ = tier_->used_bytes();
  }
  void TearDown() override {
    tier_.reset();
    std::filesystem::remove_all(folder_);
  }
  static void ExpectPayload(const std::vector<std::byte>& bytes, uint32_t seed) {
    EXPECT_EQ(bytes, PayloadOf(MakeCorpus(seed, 1).chain[0])) << "block " << seed;
  }

  std::string folder_;
  std::unique_ptr<TierUnderTest> tier_;
  uint64_t empty_bytes_ = 0;
};

TEST_P(TierTest, WhatWasPutIsFoundWithItsBytes) {
  EXPECT_FALSE(tier_->Contains(1));
  EXPECT_TRUE(tier_->Read(1).bytes.empty());
  ASSERT_TRUE(tier_->Put(1).ok());
  ASSERT_TRUE(tier_->Put(2).ok());
  EXPECT_TRUE(tier_->Contains(1));
  ExpectPayload(tier_->Read(1).bytes, 1);
  ExpectPayload(tier_->Read(2).bytes, 2);
  EXPECT_GE(tier_->used_bytes(), empty_bytes_ + 2 * kTestBlockBytes);
}

TEST_P(TierTest, PuttingABlockTwiceTakesItsSpaceOnce) {
  ASSERT_TRUE(tier_->Put(1).ok());
  ASSERT_TRUE(tier_->Put(1).ok());
  EXPECT_LT(tier_->used_bytes(), empty_bytes_ + 2 * kTestBlockBytes);
  ExpectPayload(tier_->Read(1).bytes, 1);
}

TEST_P(TierTest, WhatIsDroppedIsGoneAndItsSpaceIsBack) {
  for (uint32_t seed = 1; seed <= 4; ++seed) ASSERT_TRUE(tier_->Put(seed).ok());
  for (uint32_t seed = 1; seed <= 4; ++seed) tier_->Drop(seed);
  for (uint32_t seed = 1; seed <= 4; ++seed) {
    EXPECT_FALSE(tier_->Contains(seed));
    EXPECT_TRUE(tier_->Read(seed).bytes.empty());
  }
  EXPECT_LT(tier_->used_bytes(), empty_bytes_ + kTestBlockBytes);
}

TEST_P(TierTest, ALeaseKeepsItsBlockFromBeingPulledAway) {
  ASSERT_TRUE(tier_->Put(1).ok());
  const auto lease = tier_->Read(1);
  ASSERT_NE(lease.hold, nullptr);
  // Far more than fits: everything without a lease may go.
  for (uint32_t seed = 2; seed < 40; ++seed) (void)tier_->Put(seed);
  ExpectPayload(lease.bytes, 1);
  ExpectPayload(tier_->Read(1).bytes.empty() ? lease.bytes : tier_->Read(1).bytes, 1);
}

TEST_P(TierTest, TheCapIsHard) {
  uint32_t stored = 0;
  for (uint32_t seed = 1; seed <= 60; ++seed) {
    const Status status = tier_->Put(seed);
    EXPECT_TRUE(status.ok() || status.code() == StatusCode::kResourceExhausted)
        << status.ToString();
    EXPECT_LE(tier_->used_bytes(), tier_->capacity_bytes()) << "after block " << seed;
    stored += status.ok() && tier_->Contains(seed) ? 1 : 0;
  }
  EXPECT_GE(stored, 4u);
}

TEST_P(TierTest, APinnedBlockStaysWhateverComes) {
  ASSERT_TRUE(tier_->Put(1).ok());
  ASSERT_TRUE(tier_->Pin(1).ok());
  for (uint32_t seed = 2; seed <= 60; ++seed) (void)tier_->Put(seed);
  EXPECT_TRUE(tier_->Contains(1));
  ExpectPayload(tier_->Read(1).bytes, 1);
}

TEST_P(TierTest, DamagedBytesAreNeverServed) {
  ASSERT_TRUE(tier_->Put(1).ok());
  tier_->Damage(1);
  EXPECT_TRUE(tier_->Read(1).bytes.empty());
  EXPECT_FALSE(tier_->Contains(1));
}

TEST_P(TierTest, ManyThreadsAtOnce) {
  std::vector<std::jthread> threads;
  for (uint32_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      for (int round = 0; round < 40; ++round) {
        // Own blocks, and for reading, everybody's.
        const uint32_t seed = 1 + t * 4 + random() % 4;
        const uint32_t other = 1 + random() % 16;
        switch (random() % 4) {
          case 0:
          case 1:
            (void)tier_->Put(seed);
            break;
          case 2:
            tier_->Drop(seed);
            break;
          default: {
            const auto lease = tier_->Read(other);
            if (!lease.bytes.empty()) ExpectPayload(lease.bytes, other);
          }
        }
        EXPECT_LE(tier_->used_bytes(), tier_->capacity_bytes());
      }
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Tiers, TierTest,
                         ::testing::Values(TierCase{"Device", MakeDeviceUnderTest},
                                           TierCase{"Host", MakeHostUnderTest},
                                           TierCase{"Disk", MakeDiskUnderTest}),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace corpusd
