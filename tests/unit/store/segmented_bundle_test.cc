// Segmented corpora as bundles: rule, roots and documents arrive, and nothing that contradicts
// itself is taken.
#include <gtest/gtest.h>

#include "store/bundle_import.h"
#include "store/bundle_writer.h"
#include "tests/unit/store/segmented_corpus.h"

namespace corpusd {
namespace {

class SegmentedBundleTest : public SegmentedFixture {
 protected:
  void SetUp() override {
    StoreFixture::SetUp();
    corpus_.record.roots = {"/srv/text", "notes"};
    corpus_.Add(MakeDocument(1, 70)).Add({}).Add(MakeDocument(2, 21)).Add(MakeDocument(3, 1));
    Ingest("a", corpus_);
    auto writer = OpenExport(*store_, "a", "tiny", kTestBlockTokens);
    ASSERT_TRUE(writer.ok()) << writer.status().ToString();
    head_ = (*writer)->head();
    Result<bool> more = true;
    while (more.ok() && *more) more = (*writer)->Next(&bytes_);
    ASSERT_TRUE(more.ok()) << more.status().ToString();
    shape_.identity = corpus_.record.identity;
    shape_.root = corpus_.record.root;
    shape_.mode = "segmented";
    shape_.kv_format = "bf16";
    shape_.block_tokens = kTestBlockTokens;
    shape_.sections = kTestSections;
    shape_.block_bytes = kTestBlockBytes;
    shape_.tokens_max = 1000;
    shape_.vocabulary = 50000;
  }
  // Under this name into the same store: blocks are shared, so what comes must be the same.
  Result<CorpusRecord> Import(std::string_view bytes, const std::string& name) {
    BundleImporter importer(
        *store_, [&](const BundleHead&) { return Result<CorpusShape>(shape_); },
        [](const std::string&) { return OkStatus(); }, name);
    RETURN_IF_ERROR(importer.Feed(std::as_bytes(std::span(bytes))));
    return importer.Finish();
  }
  void ExpectBadHead(const BundleHead& head, std::string_view text) {
    const auto decoded = DecodeBundleHead(EncodeBundleHead(head));
    EXPECT_EQ(decoded.status().code(), StatusCode::kCorruption);
    EXPECT_NE(decoded.status().message().find(text), std::string::npos)
        << decoded.status().ToString();
  }

  SegmentedCorpus corpus_;
  BundleHead head_;
  CorpusShape shape_;
  std::string bytes_;
};

TEST_F(SegmentedBundleTest, ComesBackWithItsDocumentsRuleAndRoots) {
  ASSERT_TRUE(store_->RemoveCorpus("a").ok());
  const auto record = Import(bytes_, "b");
  ASSERT_TRUE(record.ok()) << record.status().ToString();
  EXPECT_EQ(record->state, CorpusState::kReady);
  EXPECT_EQ(record->mode, "segmented");
  EXPECT_EQ(record->chain, corpus_.digests());
  EXPECT_EQ(record->segments, kTestRule);
  EXPECT_EQ(record->roots, corpus_.record.roots);
  EXPECT_EQ(record->sources, corpus_.record.sources);
  EXPECT_EQ(record->durable_tokens, corpus_.tokens.size());
  EXPECT_EQ(*store_->CorpusTokens("b"), corpus_.tokens);
  ExpectWhole(record->chain);
  EXPECT_TRUE(store_->Verify("b", nullptr)->damaged.empty());
  ExpectSound();
}

TEST_F(SegmentedBundleTest, CutOffItGoesOnLater) {
  ASSERT_TRUE(store_->RemoveCorpus("a").ok());
  EXPECT_FALSE(Import(std::string_view(bytes_).substr(0, bytes_.size() / 2), "b").ok());
  const auto part = store_->GetCorpus("b");
  ASSERT_TRUE(part.ok());
  ASSERT_GT(part->chain.size(), 0u);
  EXPECT_EQ(part->durable_tokens, corpus_.chain().TokensOfBlocks(part->chain.size()));
  ASSERT_TRUE(Import(bytes_, "b").ok());
  ExpectWhole(corpus_.digests());
  ExpectSound();
}

TEST_F(SegmentedBundleTest, OtherDocumentsOverTheSameTokensAreAnotherCorpus) {
  CorpusRecord record = corpus_.record;
  record.name = "b";
  std::vector<CorpusSource> sources = record.sources;
  sources[2].tokens -= 1;
  sources[3].first_token -= 1;
  sources[3].tokens += 1;
  record.sources = sources;
  ASSERT_TRUE(store_->CreateCorpus(record, corpus_.tokens).ok());
  EXPECT_EQ(Import(bytes_, "b").status().code(), StatusCode::kAlreadyExists);
}

TEST_F(SegmentedBundleTest, ItIsOfAVersionThatOlderOnesRefuse) {
  EXPECT_EQ(static_cast<uint8_t>(bytes_[8]), kSegmentedBundleVersion);
  std::string newer = bytes_;
  newer[8] = 4;
  const Status refused = Import(newer, "b").status();
  EXPECT_EQ(refused.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(refused.message().find("version 4, this corpusd reads versions 1 to 3"),
            std::string::npos)
      << refused.ToString();
}

TEST_F(SegmentedBundleTest, AHeadThatContradictsItselfIsRefused) {
  EXPECT_TRUE(DecodeBundleHead(EncodeBundleHead(head_)).ok());
  BundleHead bad = head_;
  ++bad.blocks;
  ExpectBadHead(bad, "tokens in");
  bad = head_;
  bad.segments.window_tokens = 13;
  ExpectBadHead(bad, "windows of 13");
  bad = head_;
  bad.segments.overlap_tokens = bad.segments.window_tokens;
  ExpectBadHead(bad, "overlap");
  bad = head_;
  bad.sources[0].first_token = 0;
  ExpectBadHead(bad, "no preamble");
  bad = head_;
  bad.sources[1].first_token += 1;
  ExpectBadHead(bad, "begins at token");
  bad = head_;
  bad.sources.back().tokens = UINT64_MAX;
  ExpectBadHead(bad, "ends behind");
  bad = head_;
  bad.sources.clear();
  ExpectBadHead(bad, "no preamble");
  bad = head_;
  bad.roots = {std::string(5000, 'x')};
  ExpectBadHead(bad, "a root has");
  bad = head_;
  bad.segments = {};
  ExpectBadHead(bad, "tokens in");
}

}  // namespace
}  // namespace corpusd
