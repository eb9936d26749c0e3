// Segmented corpora: a document's blocks depend on the preamble and the document alone.
#include <algorithm>

#include "engine/segment/segment_runner.h"
#include "tests/support/corrupt_block.h"
#include "tests/unit/engine/segmented_fixture.h"

namespace corpusd {
namespace {

using SegmentedPrefillTest = SegmentedFixture;
using Document = TestDocument;

TEST_F(SegmentedPrefillTest, EveryDocumentIsAChainFromThePreamble) {
  const std::vector<Document> documents = {{"a.txt", Prose(40, 1)}, {"b.txt", Prose(300, 2)}};
  IngestSegmented("ab", documents);
  const CorpusRecord record = *store_->GetCorpus("ab");
  EXPECT_EQ(record.state, CorpusState::kReady);
  EXPECT_EQ(record.mode, "segmented");
  EXPECT_EQ(record.durable_tokens, record.tokens);
  const CorpusChain chain(record, kBlockTokens);
  ASSERT_GE(chain.segments().size(), 4u) << "a preamble, a short document, one of two windows";
  EXPECT_EQ(chain.segments()[3].context_tokens, kSegmentRule.overlap_tokens);
  EXPECT_EQ(record.chain, chain.Digests(record.root, *store_->CorpusTokens("ab")));
}

TEST_F(SegmentedPrefillTest, DocumentsAreSharedWhereverTheyStand) {
  const Document a{"a.txt", Prose(60, 1)}, b{"b.txt", Prose(300, 2)}, c{"c.txt", Prose(20, 3)};
  IngestSegmented("ab", {a, b});
  const PrefillProgress second = IngestSegmented("cba", {c, b, a});
  EXPECT_EQ(BytesOfSource("ab", 1), BytesOfSource("cba", 1));
  EXPECT_EQ(BytesOfSource("ab", 0), BytesOfSource("cba", 2));
  const CorpusRecord record = *store_->GetCorpus("cba");
  EXPECT_EQ(second.reused_tokens, record.tokens - record.sources[0].tokens)
      << "all but the new document";
}

TEST_F(SegmentedPrefillTest, ADocumentComputedElsewhereHasTheSameBytes) {
  const Document a{"a.txt", Prose(60, 1)}, b{"b.txt", Prose(300, 2)};
  IngestSegmented("ab", {a, b});
  const std::string expected = BytesOfSource("ab", 1);
  ASSERT_TRUE(store_->RemoveCorpus("ab").ok());
  const PrefillProgress alone = IngestSegmented("b", {b});
  EXPECT_EQ(alone.reused_tokens, 0u);
  EXPECT_EQ(BytesOfSource("b", 0), expected);
}

TEST_F(SegmentedPrefillTest, AStoppedPrefillGoesOnWithTheSameBlocks) {
  std::vector<Document> documents;  // of several publishes
  for (int i = 0; i < 8; ++i) documents.push_back({"d" + std::to_string(i), Prose(260, i)});
  IngestSegmented("whole", documents);
  const auto chain = store_->GetCorpus("whole")->chain;
  const std::string expected = BytesOf("whole");
  ASSERT_TRUE(store_->RemoveCorpus("whole").ok());
  ASSERT_TRUE(CreateSegmented("stopped", documents).ok());
  std::stop_source stop;
  int calls = 0;
  const Status stopped = engine_->Prefill(
      "stopped",
      [&](const PrefillProgress&) {
        if (++calls == 3) stop.request_stop();
      },
      stop.get_token());
  EXPECT_EQ(stopped.code(), StatusCode::kCancelled);
  const CorpusRecord half = *store_->GetCorpus("stopped");
  EXPECT_GT(half.chain.size(), 1u);
  EXPECT_LT(half.chain.size(), chain.size());
  ASSERT_TRUE(engine_->Prefill("stopped", [](const PrefillProgress&) {}, {}).ok());
  EXPECT_EQ(store_->GetCorpus("stopped")->chain, chain);
  EXPECT_EQ(BytesOf("stopped"), expected);
}

TEST_F(SegmentedPrefillTest, DamagedBlocksAreComputedAgainWithTheirSegment) {
  IngestSegmented("c", {{"a", Prose(60, 1)}, {"b", Prose(400, 2)}});
  const std::string expected = BytesOf("c");
  const size_t blocks = store_->GetCorpus("c")->chain.size();
  engine_.reset();
  store_.reset();
  for (const size_t block : {size_t{0}, size_t{2}, blocks - 1}) {
    ASSERT_TRUE(CorruptBlock(store_options_.data_dir, "c", block, 77).ok());
  }
  Restart();
  const auto report = engine_->Verify("c", true, [](uint64_t, uint64_t) { return true; });
  ASSERT_TRUE(report.ok()) << report.status().ToString();
  EXPECT_EQ(report->report.damaged.size(), 3u);
  EXPECT_EQ(report->repaired, 3u);
  EXPECT_EQ(BytesOf("c"), expected);
}

TEST_F(SegmentedPrefillTest, AutoIsExactWhileItFits) {
  CorpusRequest request;
  request.name = "short";
  ASSERT_TRUE(engine_->CreateCorpus(request, Tokens(Prose(50))).ok());
  EXPECT_EQ(store_->GetCorpus("short")->mode, "exact");
  request.name = "long";
  ASSERT_TRUE(engine_->CreateCorpus(request, Tokens(Prose(3000))).ok());
  EXPECT_EQ(store_->GetCorpus("long")->mode, "segmented");
}

}  // namespace
}  // namespace corpusd
