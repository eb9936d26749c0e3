// Updates of segmented corpora: what did not change keeps its bytes, and the new one takes the
// place of the old in one step.
#include "engine/segment/companions.h"
#include "tests/unit/engine/segmented_fixture.h"

namespace corpusd {
namespace {

class SegmentedUpdateTest : public SegmentedFixture {
 protected:
  const TestDocument a_{"a.txt", Prose(60, 1)}, b_{"b.txt", Prose(300, 2)},
      changed_{"b.txt", Prose(300, 3)}, added_{"c.txt", Needle()};
};

TEST_F(SegmentedUpdateTest, OnlyWhatChangedIsPrefilled) {
  IngestSegmented("docs", {a_, b_});
  const CorpusRecord before = *store_->GetCorpus("docs");
  const std::string kept = BytesOfSource("docs", 0);
  const PrefillProgress progress = Update("docs", {a_, changed_, added_});
  const CorpusRecord after = *store_->GetCorpus("docs");
  EXPECT_EQ(after.state, CorpusState::kReady);
  EXPECT_EQ(after.sources.size(), 3u);
  EXPECT_TRUE(after.replaces.empty());
  EXPECT_NE(after.id, before.id);
  EXPECT_EQ(BytesOfSource("docs", 0), kept);
  EXPECT_EQ(progress.total_tokens - progress.reused_tokens,
            after.sources[1].tokens + after.sources[2].tokens);
  EXPECT_EQ(store_->GetCorpus(UpdateName("docs")).status().code(), StatusCode::kNotFound);
  EXPECT_TRUE(store_->GetCorpus(PreviousName("docs")).ok());
}

TEST_F(SegmentedUpdateTest, ARevertedChangePrefillsNothing) {
  IngestSegmented("docs", {a_, b_});
  const auto chain = store_->GetCorpus("docs")->chain;
  Update("docs", {a_, changed_});
  const PrefillProgress reverted = Update("docs", {a_, b_});
  EXPECT_EQ(reverted.reused_tokens, reverted.total_tokens);
  EXPECT_EQ(reverted.written_bytes, 0u);
  EXPECT_EQ(store_->GetCorpus("docs")->chain, chain);
}

TEST_F(SegmentedUpdateTest, UntilItIsReadyTheOldOneIsAsked) {
  IngestSegmented("docs", {a_, b_});
  ASSERT_TRUE(CreateSegmented("docs", {a_, changed_}, /*update=*/true).ok());
  const auto old = Ask("docs");
  ASSERT_TRUE(old.ok()) << old.status().ToString();
  Restart();
  EXPECT_EQ(Ask("docs")->answer, old->answer);
  Prefill(UpdateName("docs"));
  EXPECT_TRUE(Ask("docs").ok());
  EXPECT_EQ(Ask(PreviousName("docs"))->answer, old->answer);
}

TEST_F(SegmentedUpdateTest, AnUpdateThatWasGivenUpIsBegunAgain) {
  IngestSegmented("docs", {a_, b_});
  ASSERT_TRUE(CreateSegmented("docs", {changed_}, /*update=*/true).ok());
  Update("docs", {a_, changed_});
  EXPECT_EQ(store_->GetCorpus("docs")->sources.size(), 2u);
}

TEST_F(SegmentedUpdateTest, WhatIsExactIsAppendedToInstead) {
  Ingest("exact", Prose(60));
  EXPECT_EQ(CreateSegmented("exact", {a_}, /*update=*/true).status().code(),
            StatusCode::kFailedPrecondition);
  EXPECT_EQ(CreateSegmented("nobody", {a_}, /*update=*/true).status().code(),
            StatusCode::kNotFound);
  IngestSegmented("docs", {a_});
  EXPECT_EQ(engine_->AppendCorpus("docs", Tokens(Prose(5), true, 9)).status().code(),
            StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace corpusd
