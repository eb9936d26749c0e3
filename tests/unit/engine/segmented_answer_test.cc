// Questions over segmented corpora: what is attended to, what is cited, and that neither tier nor
// restart nor damage changes an answer.
#include <filesystem>

#include "tests/support/corrupt_block.h"
#include "tests/unit/engine/segmented_fixture.h"

namespace corpusd {
namespace {

class SegmentedAnswerTest : public SegmentedFixture {
 protected:
  void SetUp() override {
    SegmentedFixture::SetUp();
    IngestSegmented("c", {{"a.txt", Prose(400, 1)},
                          {"needle.txt", "first line\n" + Needle()},
                          {"b.txt", Prose(400, 2)}});
  }

  Result<QuestionReport> AskFor(const std::string& question, const std::string& retrieval = "",
                                uint32_t budget_tokens = 0, uint32_t max_tokens = 40) {
    QuestionRequest request;
    request.corpus = "c";
    request.question = question;
    request.max_tokens = max_tokens;
    request.retrieval = retrieval;
    request.budget_tokens = budget_tokens;
    return engine_->Ask(request, [](std::string_view) { return true; }, {});
  }

  uint64_t SourceOf(uint64_t block) {
    return CorpusChain(*store_->GetCorpus("c"), kBlockTokens).SegmentOfBlock(block).source;
  }
};

TEST_F(SegmentedAnswerTest, WordsFindTheirDocumentAndItIsCitedWithItsLines) {
  const auto report = AskFor("Who wears a scarlet hat?", "lexical");
  ASSERT_TRUE(report.ok()) << report.status().ToString();
  ASSERT_TRUE(report->selection.has_value());
  EXPECT_EQ(SourceOf(report->selection->top_blocks.front()), 1u);
  ASSERT_FALSE(report->citations.empty());
  double shares = 0;
  bool cited = false;
  for (const Citation& citation : report->citations) {
    shares += citation.weight;
    if (citation.source != "needle.txt") continue;
    cited = true;
    EXPECT_EQ(citation.first_line, 2u) << "behind the header and the first line";
    EXPECT_EQ(citation.last_line, 2u);
  }
  EXPECT_TRUE(cited);
  EXPECT_NEAR(shares, 1, 1e-3);
}

TEST_F(SegmentedAnswerTest, TheBudgetBoundsWhatIsAttendedTo) {
  const uint64_t preamble = store_->GetCorpus("c")->sources.front().first_token;
  const auto small = AskFor("word", "fused", static_cast<uint32_t>(preamble) + 64, 1);
  ASSERT_TRUE(small.ok()) << small.status().ToString();
  EXPECT_LE(small->selection->blocks.size(), 2u) << "one piece, which a border may cut";
  const uint64_t question = small->attended_tokens - (preamble + 64);
  EXPECT_LT(question, 64u) << "64 tokens of the corpus, the preamble, and the question";
  const auto more = AskFor("word", "fused", 1024, 1);
  ASSERT_TRUE(more.ok());
  EXPECT_GT(more->selection->blocks.size(), small->selection->blocks.size());
  EXPECT_GT(more->attended_tokens, small->attended_tokens);
  EXPECT_LE(more->attended_tokens, 1024 + question);
}

TEST_F(SegmentedAnswerTest, ARestartAndDamageChangeNoAnswer) {
  const auto before = AskFor("Who wears a scarlet hat?");
  ASSERT_TRUE(before.ok()) << before.status().ToString();
  Restart();
  const auto after = AskFor("Who wears a scarlet hat?");
  ASSERT_TRUE(after.ok()) << after.status().ToString();
  EXPECT_EQ(after->answer, before->answer);
  EXPECT_EQ(after->selection->blocks, before->selection->blocks);
  EXPECT_GT(after->disk_bytes, 0u);

  const uint64_t needle = before->selection->blocks.front();
  engine_.reset();
  store_.reset();
  for (const uint64_t block : {uint64_t{0}, needle}) {
    ASSERT_TRUE(CorruptBlock(store_options_.data_dir, "c", block, 99).ok());
  }
  Restart();
  const auto mended = AskFor("Who wears a scarlet hat?");
  ASSERT_TRUE(mended.ok()) << mended.status().ToString();
  EXPECT_EQ(mended->answer, before->answer);
  EXPECT_GT(mended->recomputed_tokens, before->recomputed_tokens);
}

TEST_F(SegmentedAnswerTest, ALostIndexIsMadeAgainFromTheBlocks) {
  const auto before = AskFor("Who wears a scarlet hat?");
  ASSERT_TRUE(before.ok());
  engine_.reset();
  store_.reset();
  size_t removed = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(store_options_.data_dir)) {
    if (entry.path().filename().string().find("retrieval_index") == std::string::npos) continue;
    std::filesystem::remove(entry.path());
    ++removed;
  }
  EXPECT_EQ(removed, 1u);
  Restart();
  const auto after = AskFor("Who wears a scarlet hat?");
  ASSERT_TRUE(after.ok()) << after.status().ToString();
  EXPECT_EQ(after->answer, before->answer);
  EXPECT_EQ(after->selection->top_blocks, before->selection->top_blocks);
}

TEST_F(SegmentedAnswerTest, WhatCannotBeAskedIsRefused) {
  EXPECT_EQ(AskFor("why?", "guess").status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(Ask("c", /*no_cache=*/true).status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace corpusd
