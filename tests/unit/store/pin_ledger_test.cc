// Pins: what they are charged, whom they are charged to, when they are refused. The last tests run
// over a real store.
#include "store/pin_ledger.h"

#include <gmock/gmock.h>

#include "store/base/clock.h"
#include "tests/unit/store/store_fixture.h"

namespace corpusd {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kNow = 1000;
constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kChargedBytes = kTestBlockBytes + kPinnedBlockOverheadBytes;

// So many blocks of 1 MiB when charged.
CorpusRecord Pinned(uint64_t id, const std::string& name, const std::string& owner, uint64_t blocks,
                    TierKind tier = TierKind::kDisk) {
  CorpusRecord record;
  record.id = id;
  record.name = name;
  record.block_bytes = kMiB - kPinnedBlockOverheadBytes;
  record.whole_blocks = blocks;
  record.pin = CorpusPin{static_cast<uint8_t>(tier), 0, owner, "", kNow};
  return record;
}

TEST(PinLedger, ChargesWhatACorpusTakesWhenItIsWhole) {
  CorpusRecord record = Pinned(1, "a", "alice", 10);
  record.chain = std::vector<Digest>(3);
  EXPECT_EQ(PinCharge(record), 10 * kMiB);
  record.whole_blocks = 0;  // of a version that did not note it
  EXPECT_EQ(PinCharge(record), 3 * kMiB);
}

TEST(PinLedger, HoldingsAreByOwnerTheLargestFirstAndLapsedPinsHoldNothing) {
  PinLedger ledger(kNow);
  ledger.Add(Pinned(1, "a", "alice", 2));
  ledger.Add(Pinned(2, "b", "bob", 5));
  ledger.Add(Pinned(3, "c", "alice", 1));
  CorpusRecord lapsed = Pinned(4, "d", "carol", 9);
  lapsed.pin->expires_at_ms = kNow;
  ledger.Add(lapsed);
  const auto holdings = ledger.Holdings();
  ASSERT_EQ(holdings.size(), 2u);
  EXPECT_EQ(holdings[0].owner, "bob");
  EXPECT_EQ(holdings[0].bytes, 5 * kMiB);
  EXPECT_EQ(holdings[1].pins, 2u);
  EXPECT_EQ(holdings[1].bytes, 3 * kMiB);
  EXPECT_EQ(ledger.TotalBytes(), 8 * kMiB);
}

TEST(PinLedger, ARefusalSaysWhoHoldsWhatTheLargestFirst) {
  PinLedger ledger(kNow);
  ledger.Add(Pinned(1, "small", "alice", 2));
  ledger.Add(Pinned(2, "large", "bob", 5));
  const PinLimits limits{0, 10 * kMiB, 100 * kMiB, 100 * kMiB};
  EXPECT_TRUE(ledger.CheckFits(Pinned(3, "new", "carol", 3), limits).ok());
  const Status refused = ledger.CheckFits(Pinned(3, "new", "carol", 4), limits);
  EXPECT_EQ(refused.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(refused.message(), AllOf(HasSubstr("'new'"), HasSubstr("needs 4.0 MiB"),
                                       HasSubstr("10.0 MiB"), HasSubstr("7.0 MiB are promised"),
                                       HasSubstr("'large' 5.0 MiB (bob), 'small' 2.0 MiB (alice)"),
                                       HasSubstr("--pins-total-bytes")));
}

TEST(PinLedger, AnOwnersQuotaNamesTheOwnersPinsOnly) {
  PinLedger ledger(kNow);
  ledger.Add(Pinned(1, "mine", "alice", 3));
  ledger.Add(Pinned(2, "theirs", "bob", 3));
  const PinLimits limits{4 * kMiB, 0, 100 * kMiB, 100 * kMiB};
  const Status refused = ledger.CheckFits(Pinned(3, "new", "alice", 2), limits);
  EXPECT_THAT(refused.message(), AllOf(HasSubstr("'mine' 3.0 MiB"), Not(HasSubstr("theirs")),
                                       HasSubstr("quota of alice")));
  EXPECT_TRUE(ledger.CheckFits(Pinned(3, "new", "carol", 2), limits).ok());
  // A pin that is changed does not stand in its own way.
  EXPECT_TRUE(ledger.CheckFits(Pinned(1, "mine", "alice", 4), limits).ok());
}

TEST(PinLedger, ARefusalNamesNoOtherTenantsPins) {
  PinLedger ledger(kNow);
  ledger.Add(Pinned(1, "acme/secret", "acme/alice", 5));
  ledger.Add(Pinned(2, "globex/own", "globex/carl", 1));
  ledger.Add(Pinned(3, "plain", "bob", 1));
  const PinLimits limits{0, 8 * kMiB, 100 * kMiB, 100 * kMiB};
  for (const std::string name : {"globex/new", "new"}) {
    const Status refused = ledger.CheckFits(Pinned(9, name, "x", 4), limits);
    EXPECT_EQ(refused.code(), StatusCode::kResourceExhausted);
    EXPECT_THAT(refused.message(), AllOf(Not(HasSubstr("acme")), Not(HasSubstr("secret")),
                                         HasSubstr(name == "new" ? "'plain'" : "'globex/own'")));
  }
}

TEST(PinLedger, ManyPinsAreCountedNotListed) {
  PinLedger ledger(kNow);
  for (uint64_t i = 1; i <= 30; ++i) ledger.Add(Pinned(i, "c" + std::to_string(i), "alice", i));
  const PinLimits limits{0, kMiB, 0, 1000 * kMiB};
  const Status refused = ledger.CheckFits(Pinned(99, "new", "bob", 1), limits);
  EXPECT_THAT(refused.message(), AllOf(HasSubstr("'c30' 30.0 MiB"), HasSubstr("and 22 more")));
}

TEST(PinLedger, WithoutATotalPinsLeaveATenthOfTheDisk) {
  const PinLimits limits{0, 0, 0, 100 * kMiB};
  EXPECT_TRUE(PinLedger(kNow).CheckFits(Pinned(1, "a", "alice", 90), limits).ok());
  EXPECT_FALSE(PinLedger(kNow).CheckFits(Pinned(1, "a", "alice", 91), limits).ok());
}

class StoredPinTest : public StoreFixture {
 protected:
  static CorpusPin DiskPin(const std::string& owner, int64_t expires_at_ms = 0) {
    return {static_cast<uint8_t>(TierKind::kDisk), expires_at_ms, owner, "for the audit", kNow};
  }
};

TEST_F(StoredPinTest, APinSurvivesARestartWithItsOwnerReasonAndExpiry) {
  CorpusRecord record = Ingest("a", MakeCorpus(1, 2));
  record.pin = CorpusPin{1, WallTimeMs() + 100'000, "alice", "for the audit", kNow};
  record.priority = RetentionPriority::kHigh;
  const auto pinned = store_->UpdateCorpus(record);
  ASSERT_TRUE(pinned.ok()) << pinned.status().ToString();
  Reopen();
  const auto found = store_->GetCorpus("a");
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(found->pin, pinned->pin);
  EXPECT_EQ(found->priority, RetentionPriority::kHigh);
}

// What users of caches with pins made at creation only complain about (kv-stores, Mooncake).
TEST_F(StoredPinTest, APinChangesAtAnyTimeAlsoWhileTheCorpusGrows) {
  const TestCorpus corpus = MakeCorpus(1, 4);
  auto record = Create("a", corpus);
  record = PublishTo(*record, corpus, 2);
  record->pin = DiskPin("alice");
  record = store_->UpdateCorpus(*record);
  ASSERT_TRUE(record.ok());
  record = PublishTo(*record, corpus, 4);
  record->pin->tier = static_cast<uint8_t>(TierKind::kHost);
  record->pin->expires_at_ms = WallTimeMs() + 1000;
  record = store_->UpdateCorpus(*record);
  ASSERT_TRUE(record.ok());
  record->pin.reset();
  EXPECT_TRUE(store_->UpdateCorpus(*record).ok());
  EXPECT_TRUE(store_->Evict("a", TierKind::kDisk, false).ok());
}

TEST_F(StoredPinTest, OverQuotaIsRefusedInsteadOfWedgingEviction) {
  options_.pins_owner_bytes = 4 * kChargedBytes;
  Reopen();
  CorpusRecord first = Ingest("first", MakeCorpus(1, 3));
  first.pin = DiskPin("alice");
  ASSERT_TRUE(store_->UpdateCorpus(first).ok());
  CorpusRecord second = Ingest("second", MakeCorpus(2, 2));
  second.pin = DiskPin("alice");
  const auto refused = store_->UpdateCorpus(second);
  EXPECT_EQ(refused.status().code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(refused.status().message(), HasSubstr("'first'"));
  EXPECT_FALSE(store_->GetCorpus("second")->pin.has_value());
  EXPECT_TRUE(store_->Evict("second", TierKind::kDisk, false).ok());
  second = *store_->GetCorpus("second");
  second.pin = DiskPin("bob");
  EXPECT_TRUE(store_->UpdateCorpus(second).ok());
}

TEST_F(StoredPinTest, APinnedCorpusThatIsBornOrGrowsMustFitToo) {
  options_.pins_total_bytes = 3 * kChargedBytes;
  Reopen();
  CorpusRecord born;
  born.name = "born";
  born.block_bytes = kTestBlockBytes;
  born.whole_blocks = 4;
  born.pin = DiskPin("alice");
  const std::vector<TokenId> tokens(4 * kTestBlockTokens);
  EXPECT_EQ(store_->CreateCorpus(born, tokens).status().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(store_->GetCorpus("born").status().code(), StatusCode::kNotFound);
  born.whole_blocks = 2;
  auto record = store_->CreateCorpus(born, tokens);
  ASSERT_TRUE(record.ok()) << record.status().ToString();
  record->whole_blocks = 4;
  EXPECT_EQ(store_->ReplaceTokens(*record, tokens).status().code(), StatusCode::kResourceExhausted);
  // What was promised stands when the limits have become smaller.
  options_.pins_total_bytes = 1;
  Reopen();
  record = store_->GetCorpus("born");
  record->state = CorpusState::kPrefilling;
  EXPECT_TRUE(store_->UpdateCorpus(*record).ok());
}

TEST_F(StoredPinTest, ALapsedPinHoldsAndProtectsNothing) {
  options_.pins_owner_bytes = 2 * kChargedBytes;
  Reopen();
  CorpusRecord first = Ingest("first", MakeCorpus(1, 2));
  first.pin = DiskPin("alice", WallTimeMs() + 1000);
  ASSERT_TRUE(store_->UpdateCorpus(first).ok());
  CorpusRecord second = Ingest("second", MakeCorpus(2, 2));
  second.pin = DiskPin("alice");
  EXPECT_FALSE(store_->UpdateCorpus(second).ok());
  EXPECT_EQ(store_->Evict("first", TierKind::kDisk, false).status().code(),
            StatusCode::kFailedPrecondition);
  AdvanceWallTimeForTests(1001);
  EXPECT_TRUE(store_->UpdateCorpus(second).ok());
  EXPECT_TRUE(store_->Evict("first", TierKind::kDisk, false).ok());
  AdvanceWallTimeForTests(-1001);
}

}  // namespace
}  // namespace corpusd
