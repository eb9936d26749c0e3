// The device tier in a store: copies of blocks, an answer's bytes from wherever they are.
#include <gtest/gtest.h>

#include "tests/support/fake_device_memory.h"
#include "tests/unit/store/store_fixture.h"

namespace corpusd {
namespace {

class DevicePromotionTest : public StoreFixture {
 protected:
  void SetUp() override {
    options_.device = memory_;
    options_.device_bytes = 16 * kTestBlockBytes;
    StoreFixture::SetUp();
    corpus_ = MakeCorpus(1, 6);
    record_ = Ingest("a", corpus_);
  }
  Result<uint64_t> Promote(const std::stop_token& stop = {}) {
    FetchStats stats;
    ASSIGN_OR_RETURN(const auto refs, store_->Fetch(corpus_.chain, &stats));
    return store_->PromoteToDevice(corpus_.chain, refs, stop);
  }
  FetchStats FetchWithoutHost() {
    EXPECT_TRUE(store_->Evict("a", TierKind::kHost, false).ok());
    FetchStats stats;
    const auto refs = store_->Fetch(corpus_.chain, &stats);
    EXPECT_TRUE(refs.ok()) << refs.status().ToString();
    for (size_t i = 0; i < corpus_.chain.size(); ++i) {
      const auto expected = PayloadOf(corpus_.chain[i]);
      EXPECT_TRUE(std::equal(expected.begin(), expected.end(), (*refs)[i].bytes().begin())) << i;
    }
    return stats;
  }

  const std::shared_ptr<FakeDeviceMemory> memory_ =
      std::make_shared<FakeDeviceMemory>(64 * kTestBlockBytes);
  TestCorpus corpus_;
  CorpusRecord record_;
};

TEST_F(DevicePromotionTest, BytesComeFromTheDeviceIfOnlyItIsFaster) {
  EXPECT_EQ(*Promote(), 6 * kTestBlockBytes);
  EXPECT_EQ(store_->UsageOf(record_).device_bytes, 6 * kTestBlockBytes);
  const FetchStats stats = FetchWithoutHost();
  EXPECT_EQ(stats.device_bytes, 6 * kTestBlockBytes);
  EXPECT_EQ(stats.disk_bytes, 0u);
}

TEST_F(DevicePromotionTest, PromotingTwiceCopiesOnce) {
  ASSERT_TRUE(Promote().ok());
  const uint64_t copies = memory_->copies();
  EXPECT_EQ(*Promote(), 6 * kTestBlockBytes);
  EXPECT_EQ(memory_->copies(), copies);
}

// DY#15079: a device copy that failed must not leave keys to wrong bytes.
TEST_F(DevicePromotionTest, AFailedCopyLeavesNoBlockBehind) {
  memory_->FailCopies(/*after=*/2, /*times=*/1);
  EXPECT_EQ(Promote().status().code(), StatusCode::kDeviceError);
  EXPECT_LT(store_->UsageOf(record_).device_bytes, 6 * kTestBlockBytes);
  EXPECT_EQ(memory_->used_bytes(), store_->UsageOf(record_).device_bytes);
  EXPECT_TRUE(Promote().ok());
}

TEST_F(DevicePromotionTest, DamageOnTheDeviceIsReadFromDiskInstead) {
  ASSERT_TRUE(Promote().ok());
  memory_->DamageEverything();
  const FetchStats stats = FetchWithoutHost();
  EXPECT_EQ(stats.disk_bytes, 6 * kTestBlockBytes);
  EXPECT_TRUE(stats.damaged.empty());
  EXPECT_EQ(store_->UsageOf(record_).device_bytes, 0u) << "the damaged copies are forgotten";
}

TEST_F(DevicePromotionTest, ADeviceThatFailsCostsATransferAndNoAnswer) {
  ASSERT_TRUE(Promote().ok());
  memory_->FailCopies(0, 1000);
  EXPECT_EQ(FetchWithoutHost().disk_bytes, 6 * kTestBlockBytes);
}

TEST_F(DevicePromotionTest, EvictFreesTheDeviceAndAPinHoldsIt) {
  ASSERT_TRUE(Promote().ok());
  EXPECT_EQ(store_->Evict("a", TierKind::kDevice, /*dry_run=*/true)->blocks, 6u);
  record_.pin = CorpusPin{static_cast<uint8_t>(TierKind::kDevice), 0};
  record_ = *store_->UpdateCorpus(record_);
  EXPECT_EQ(store_->Evict("a", TierKind::kDevice, false).status().code(),
            StatusCode::kFailedPrecondition);
  EXPECT_EQ(store_->Usage()[2].name, "device");
  EXPECT_EQ(store_->Usage()[2].pinned_bytes, 6 * kTestBlockBytes);
  record_.pin.reset();
  ASSERT_TRUE(store_->UpdateCorpus(record_).ok());
  EXPECT_EQ(store_->Evict("a", TierKind::kDevice, false)->bytes, 6 * kTestBlockBytes);
  EXPECT_EQ(memory_->used_bytes(), 0u);
}

TEST_F(DevicePromotionTest, ACancelledPromotionStopsAndKeepsWhatItCopied) {
  std::stop_source stop;
  stop.request_stop();
  EXPECT_EQ(Promote(stop.get_token()).status().code(), StatusCode::kCancelled);
  EXPECT_EQ(store_->UsageOf(record_).device_bytes, 0u);
}

TEST_F(DevicePromotionTest, TheDeviceItselfMayBeFullerThanItsCapSays) {
  const auto small = std::make_shared<FakeDeviceMemory>(2 * kTestBlockBytes);
  options_.device = small;
  Reopen();
  EXPECT_EQ(Promote().status().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(store_->Usage()[2].used_bytes, small->used_bytes());
  store_.reset();
}

TEST_F(DevicePromotionTest, WithoutADeviceThereIsNoTierToShowOrToUse) {
  options_.device = nullptr;
  Reopen();
  EXPECT_EQ(store_->Usage().size(), 2u);
  EXPECT_EQ(Promote().status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(store_->Evict("a", TierKind::kDevice, false).status().code(),
            StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace corpusd
