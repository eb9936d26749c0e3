// One corpus in the place of another: all of it or nothing, and nobody who reads notices.
#include <gtest/gtest.h>

#include <algorithm>

#include "store/pin_ledger.h"
#include "tests/unit/store/store_fixture.h"

namespace corpusd {
namespace {

constexpr int64_t kFarMs = 4'000'000'000'000;

class ReplaceCorpusTest : public StoreFixture {
 protected:
  // A ready corpus that is to replace `to`.
  CorpusRecord MakeUpdate(const std::string& to, const TestCorpus& content) {
    CorpusRecord record = Ingest(to + "~update", content);
    record.replaces = to;
    auto ready = store_->UpdateCorpus(record);
    EXPECT_TRUE(ready.ok()) << ready.status().ToString();
    return *ready;
  }
  Result<CorpusRecord> Replace(const std::string& to) {
    return store_->ReplaceCorpus(to + "~update", to, to + "~previous", kFarMs);
  }
  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const CorpusRecord& record : store_->ListCorpora()) names.push_back(record.name);
    return names;
  }
  void ExpectSound() {
    for (const std::string& line : store_->Diagnose()) {
      EXPECT_FALSE(line.starts_with("error")) << line;
    }
  }
  // Refused, and every record is what it was.
  void ExpectRefused(StatusCode code, const std::string& text) {
    const auto before = store_->ListCorpora();
    const Status status = Replace("a").status();
    EXPECT_EQ(status.code(), code) << status.ToString();
    EXPECT_NE(status.message().find(text), std::string::npos) << status.ToString();
    const auto after = store_->ListCorpora();
    ASSERT_EQ(after.size(), before.size());
    for (size_t i = 0; i < after.size(); ++i) {
      EXPECT_EQ(after[i].name, before[i].name);
      EXPECT_EQ(after[i].generation, before[i].generation);
      EXPECT_EQ(after[i].pin, before[i].pin);
    }
    ExpectSound();
  }
};

TEST_F(ReplaceCorpusTest, TheNewOneTakesNamePinExpiryPriorityAndAge) {
  const TestCorpus first = MakeCorpus(1, 6), second = MakeCorpus(2, 5, 3);
  CorpusRecord old = Ingest("a", first);
  old.pin = CorpusPin{static_cast<uint8_t>(TierKind::kDisk), 0, "alice", "the audit", 5};
  old.expires_at_ms = kFarMs + 1;
  old.priority = RetentionPriority::kHigh;
  old.created_at_ms = 1234;
  ASSERT_TRUE(store_->UpdateCorpus(old).ok());
  const CorpusRecord made = MakeUpdate("a", second);
  const auto replaced = Replace("a");
  ASSERT_TRUE(replaced.ok()) << replaced.status().ToString();
  for (int opening = 0; opening < 2; ++opening) {
    EXPECT_EQ(Names(), (std::vector<std::string>{"a", "a~previous"}));
    const auto now = store_->GetCorpus("a");
    EXPECT_EQ(now->id, made.id);
    EXPECT_EQ(now->generation, replaced->generation);
    EXPECT_GT(now->generation, made.generation);
    EXPECT_EQ(now->chain, second.chain);
    EXPECT_EQ(now->replaces, "");
    EXPECT_EQ(now->pin, old.pin);
    EXPECT_EQ(now->expires_at_ms, kFarMs + 1);
    EXPECT_EQ(now->priority, RetentionPriority::kHigh);
    EXPECT_EQ(now->created_at_ms, 1234);
    EXPECT_EQ(*store_->CorpusTokens("a"), second.tokens);
    const auto before = store_->GetCorpus("a~previous");
    EXPECT_EQ(before->id, old.id);
    EXPECT_EQ(before->chain, first.chain);
    EXPECT_FALSE(before->pin.has_value());
    EXPECT_EQ(before->priority, RetentionPriority::kLow);
    EXPECT_EQ(before->expires_at_ms, kFarMs);
    EXPECT_EQ(*store_->CorpusTokens("a~previous"), first.tokens);
    ExpectWhole(first.chain);
    ExpectWhole(second.chain);
    ExpectSound();
    Reopen();
  }
}

// Three contents in turn: what the first one alone had is given back.
TEST_F(ReplaceCorpusTest, WhatWasCalledPreviousGoesWithItsBlocks) {
  const TestCorpus first = MakeCorpus(1, 9, 2), second = MakeCorpus(2, 6, 2),
                   third = MakeCorpus(3, 7, 2);
  const uint64_t first_id = Ingest("a", first).id;
  MakeUpdate("a", second);
  ASSERT_TRUE(Replace("a").ok());
  MakeUpdate("a", third);
  ASSERT_TRUE(Replace("a").ok());
  for (int opening = 0; opening < 2; ++opening) {
    EXPECT_EQ(Names(), (std::vector<std::string>{"a", "a~previous"}));
    ExpectWhole(third.chain);
    ExpectWhole(second.chain);
    FetchStats stats;
    ASSERT_TRUE(store_->Fetch(first.chain, &stats).ok());
    EXPECT_EQ(stats.missing.size(), 7u) << "shared blocks stay, its own are gone";
    ExpectSound();
    Reopen();
  }
  const auto notes = store_->EvictionNotes();
  ASSERT_EQ(notes.size(), 1u);
  EXPECT_EQ(notes[0].corpus_id, first_id);
  EXPECT_EQ(notes[0].corpus, "a~previous");
  for (const std::string& name : Names()) ASSERT_TRUE(store_->RemoveCorpus(name).ok());
  EXPECT_TRUE(std::filesystem::is_empty(folder_ + "/segments"));
}

TEST_F(ReplaceCorpusTest, WhoReadsGoesOnReading) {
  const TestCorpus first = MakeCorpus(1, 4), second = MakeCorpus(2, 4);
  Ingest("a", first);
  FetchStats stats;
  const auto leased = store_->Fetch(first.chain, &stats);
  ASSERT_TRUE(leased.ok());
  MakeUpdate("a", second);
  ASSERT_TRUE(Replace("a").ok());
  MakeUpdate("a", MakeCorpus(3, 4));
  ASSERT_TRUE(Replace("a").ok());  // the first is removed
  for (size_t i = 0; i < first.chain.size(); ++i) {
    const auto expected = PayloadOf(first.chain[i]);
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), (*leased)[i].bytes().begin()));
  }
}

TEST_F(ReplaceCorpusTest, WhatIsNotReadyOrNotMeantIsRefused) {
  Ingest("a", MakeCorpus(1, 3));
  ExpectRefused(StatusCode::kNotFound, "corpus 'a~update' does not exist");
  CorpusRecord record = Ingest("a~update", MakeCorpus(2, 3));
  ExpectRefused(StatusCode::kFailedPrecondition, "it was not made to");
  record.replaces = "a";
  record.state = CorpusState::kPrefilling;
  record = *store_->UpdateCorpus(record);
  ExpectRefused(StatusCode::kFailedPrecondition, "it is prefilling");
  record.state = CorpusState::kReady;
  ASSERT_TRUE(store_->UpdateCorpus(record).ok());
  ASSERT_TRUE(store_->RenameCorpus("a", "b").ok());
  ExpectRefused(StatusCode::kNotFound, "corpus 'a' does not exist");
  ASSERT_TRUE(store_->RenameCorpus("b", "a").ok());
  CorpusRecord oldest = Ingest("a~previous", MakeCorpus(3, 3));
  oldest.pin = CorpusPin{static_cast<uint8_t>(TierKind::kDisk), 0};
  ASSERT_TRUE(store_->UpdateCorpus(oldest).ok());
  ExpectRefused(StatusCode::kFailedPrecondition, "corpus 'a~previous', which goes then, is pinned");
}

TEST_F(ReplaceCorpusTest, ARenamedUpdateReplacesNobody) {
  Ingest("a", MakeCorpus(1, 3));
  MakeUpdate("a", MakeCorpus(2, 3));
  ASSERT_TRUE(store_->RenameCorpus("a~update", "b").ok());
  EXPECT_EQ(store_->GetCorpus("b")->replaces, "");
}

TEST_F(ReplaceCorpusTest, APinThatDoesNotFitAtTheNewSizeIsRefused) {
  const TestCorpus first = MakeCorpus(1, 4), second = MakeCorpus(2, 6);
  options_.pins_total_bytes = 5 * (kTestBlockBytes + kPinnedBlockOverheadBytes);
  Reopen();
  CorpusRecord old = Ingest("a", first);
  old.pin = CorpusPin{static_cast<uint8_t>(TierKind::kDisk), 0, "alice"};
  ASSERT_TRUE(store_->UpdateCorpus(old).ok());
  MakeUpdate("a", second);
  ExpectRefused(StatusCode::kResourceExhausted, "cannot pin corpus 'a'");
  // The old one's own promise is no obstacle: it ends with the change.
  options_.pins_total_bytes = 6 * (kTestBlockBytes + kPinnedBlockOverheadBytes);
  Reopen();
  ASSERT_TRUE(Replace("a").ok());
  EXPECT_TRUE(store_->GetCorpus("a")->pin.has_value());
}

// A promise that stands is kept at its size, even over a limit that was lowered since.
TEST_F(ReplaceCorpusTest, APinThatStandsIsKeptByWhatIsNoLarger) {
  CorpusRecord old = Ingest("a", MakeCorpus(1, 6));
  old.pin = CorpusPin{static_cast<uint8_t>(TierKind::kHost), 0, "alice"};
  ASSERT_TRUE(store_->UpdateCorpus(old).ok());
  options_.pins_total_bytes = 1;
  Reopen();
  MakeUpdate("a", MakeCorpus(2, 6));
  ASSERT_TRUE(Replace("a").ok());
  EXPECT_EQ(store_->Usage()[0].pinned_bytes, 6 * kTestBlockBytes) << "pinned blocks of the new one";
}

TEST_F(ReplaceCorpusTest, ADiskThatTakesNoWritesLeavesAllAsItWas) {
  Ingest("a", MakeCorpus(1, 4));
  MakeUpdate("a", MakeCorpus(2, 4));
  ArmFault("catalog.write", FaultKind::kNoSpace, 0, 1);
  ExpectRefused(StatusCode::kResourceExhausted, "");
  ASSERT_TRUE(Replace("a").ok());
  ExpectSound();
}

}  // namespace
}  // namespace corpusd
