#include <gtest/gtest.h>

#include "engine/prefill/prefill_runner.h"
#include "store/base/fault_point.h"
#include "tests/support/corrupt_block.h"
#include "tests/unit/engine/engine_fixture.h"

namespace corpusd {
namespace {

class DamagedHistoryTest : public EngineFixture {
 protected:
  void Damage(const std::string& name, uint64_t block, uint64_t payload_byte) {
    engine_.reset();
    store_.reset();
    const Status status = CorruptBlock(store_options_.data_dir, name, block, payload_byte);
    ASSERT_TRUE(status.ok()) << status.ToString();
    Restart();
  }
};

TEST_F(DamagedHistoryTest, ADamagedSectionIsComputedAgainAndTheAnswerStays) {
  Ingest("a", Prose(400));
  const CorpusRecord record = *store_->GetCorpus("a");
  ASSERT_GT(record.chain.size(), 5u);
  const auto before = Ask("a");
  ASSERT_TRUE(before.ok());
  // In the first layer, and in the last: that one is found when the others are computed already.
  for (const uint64_t payload_byte : {uint64_t{7}, record.block_bytes - 7}) {
    Damage("a", 4, payload_byte);
    const auto after = Ask("a");
    ASSERT_TRUE(after.ok()) << after.status().ToString();
    EXPECT_EQ(after->answer, before->answer);
    EXPECT_GT(after->recomputed_tokens, 0u);
    EXPECT_EQ(after->cached_tokens + after->recomputed_tokens, record.tokens);
    Restart();
    const auto repaired = Ask("a");
    ASSERT_TRUE(repaired.ok());
    EXPECT_EQ(repaired->recomputed_tokens, 0u);
    EXPECT_EQ(repaired->answer, before->answer);
  }
}

TEST_F(DamagedHistoryTest, AResumedPrefillRepairsTheHistoryItReads) {
  Ingest("through", Prose(400));
  const std::string expected = BytesOf("through");
  ASSERT_TRUE(store_->RemoveCorpus("through").ok());
  ASSERT_TRUE(Create("a", Prose(400)).ok());
  std::stop_source stop;
  const Status stopped = engine_->Prefill(
      "a",
      [&](const PrefillProgress& progress) {
        if (progress.done_tokens > 0) stop.request_stop();
      },
      stop.get_token());
  ASSERT_EQ(stopped.code(), StatusCode::kCancelled);
  Damage("a", 1, 100);
  const Status status = engine_->Prefill("a", [](const PrefillProgress&) {}, {});
  ASSERT_TRUE(status.ok()) << status.ToString();
  EXPECT_EQ(BytesOf("a"), expected);
}

TEST_F(DamagedHistoryTest, AReadErrorFailsTheQuestionWithItsCauseAndTheNextOneIsAnswered) {
  Ingest("a", Prose(300));
  const auto before = Ask("a");
  Restart();
  ArmFault("payload.read", FaultKind::kIoError, /*after=*/2, /*times=*/1);
  EXPECT_EQ(Ask("a").status().code(), StatusCode::kIoError);
  DisarmFaults();
  const auto after = Ask("a");
  ASSERT_TRUE(before.ok() && after.ok());
  EXPECT_EQ(after->answer, before->answer);
  EXPECT_EQ(after->recomputed_tokens, 0u);
}

// Holding a whole corpus to mend one block of it wedged stores that were smaller than a corpus
// (kv-stores 3.14, 3.16): a run needs what lies before it, and nothing behind.
TEST_F(DamagedHistoryTest, ACorpusLargerThanTheHostTierIsVerifiedAndRepairedInPieces) {
  Ingest("a", Prose(450));
  const std::string expected = BytesOf("a");
  const CorpusRecord record = *store_->GetCorpus("a");
  ASSERT_GT(record.chain.size(), 16u);
  const uint64_t pages = (record.block_bytes + 4095) / 4096 * 4096;
  Damage("a", 1, 7);
  Damage("a", 6, 7);
  store_options_.host_bytes = 6 * pages;
  Restart();
  const auto keep_on = [](uint64_t, uint64_t) { return true; };
  const auto outcome = engine_->Verify("a", /*repair=*/true, keep_on);
  ASSERT_TRUE(outcome.ok()) << outcome.status().ToString();
  EXPECT_EQ(outcome->report.damaged.size(), 2u);
  EXPECT_EQ(outcome->repaired, 2u);
  // What lies before a broken run need not fit: it is read in turn.
  Damage("a", 2, 7);
  Damage("a", 13, 7);
  const auto again = engine_->Verify("a", /*repair=*/true, keep_on);
  ASSERT_TRUE(again.ok()) << again.status().ToString();
  EXPECT_EQ(again->report.damaged.size(), 2u);
  EXPECT_EQ(again->repaired, 2u);
  EXPECT_EQ(engine_->Verify("a", /*repair=*/false, keep_on)->report.damaged.size(), 0u);
  store_options_.host_bytes = uint64_t{1} << 30;
  Restart();
  EXPECT_EQ(BytesOf("a"), expected);
}

TEST_F(DamagedHistoryTest, AnEvictedTailIsComputedAgainByteForByte) {
  store_options_.evict_run_blocks = kRunBlocks;
  Restart();
  Ingest("a", Prose(450));
  const std::string expected = BytesOf("a");
  const auto before = Ask("a");
  const auto plan = store_->EvictByPolicy(TierKind::kDisk, 1, /*dry_run=*/false);
  ASSERT_TRUE(plan.ok()) << plan.status().ToString();
  const CorpusRecord cut = *store_->GetCorpus("a");
  ASSERT_GT(cut.chain.size(), 0u);
  EXPECT_EQ(cut.chain.size() % kRunBlocks, 0u);
  EXPECT_EQ(cut.state, CorpusState::kEvicted);
  EXPECT_EQ(Ask("a").status().code(), StatusCode::kNotReady);
  const Status built = engine_->Prefill("a", [](const PrefillProgress&) {}, {});
  ASSERT_TRUE(built.ok()) << built.ToString();
  EXPECT_EQ(BytesOf("a"), expected);
  EXPECT_EQ(Ask("a")->answer, before->answer);
}

// A disk that takes no writes costs the mending, not the answer.
TEST_F(DamagedHistoryTest, AReadOnlyStoreStillAnswersOverADamagedBlock) {
  Ingest("a", Prose(400));
  const auto before = Ask("a");
  Damage("a", 4, 7);
  ArmFault("payload.write", FaultKind::kNoSpace, /*after=*/0, /*times=*/UINT64_MAX);
  const auto answered = Ask("a");
  EXPECT_TRUE(store_->write_gate().state().read_only);
  DisarmFaults();
  const auto mended = Ask("a");
  ASSERT_TRUE(before.ok() && answered.ok() && mended.ok()) << answered.status().ToString();
  EXPECT_EQ(answered->answer, before->answer);
  EXPECT_EQ(answered->cached_tokens, 0u);
  EXPECT_EQ(mended->answer, before->answer);
  EXPECT_GT(mended->cached_tokens, 0u);
  EXPECT_FALSE(store_->write_gate().state().read_only);
  EXPECT_EQ(Ask("a")->recomputed_tokens, 0u);
}

}  // namespace
}  // namespace corpusd
