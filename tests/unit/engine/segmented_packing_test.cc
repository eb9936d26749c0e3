// Documents that are computed together: each has the bytes that it has alone.
#include <fstream>

#include "engine/prefill/prefill_runner.h"
#include "engine/segment/segment_runner.h"
#include "tests/unit/engine/segmented_fixture.h"

namespace corpusd {
namespace {

class SegmentedPackingTest : public SegmentedFixture {
 protected:
  void SetUp() override {
    model_.head_dim = 64;
    options_.calibration_dir = folder_.File("calibration");
    options_.calibration_text = folder_.File("text");
    std::ofstream(options_.calibration_text) << Prose(3000, 5);
    SegmentedFixture::SetUp();
  }

  // Tokens of a document in a segmented corpus, its header included.
  uint64_t TokensOf(const TestDocument& document) {
    const auto record = CreateSegmented("measured", {document});
    EXPECT_TRUE(record.ok()) << record.status().ToString();
    EXPECT_TRUE(store_->RemoveCorpus("measured").ok());
    return record->sources[0].tokens;
  }

  // Of exactly so many tokens: the tiny model's letters beyond English's merges are tokens each.
  TestDocument OfTokens(const std::string& path, uint64_t tokens, char letter) {
    const uint64_t header = TokensOf({path, "z"}) - 1;
    TestDocument document{path, std::string(tokens - header, letter)};
    EXPECT_EQ(TokensOf(document), tokens);
    return document;
  }

  std::vector<TestDocument> ManyDocuments() {
    std::vector<TestDocument> documents;
    for (int i = 0; i < 14; ++i) {
      documents.push_back({"d" + std::to_string(i), Prose(static_cast<size_t>(1 + i * i % 23), i)});
    }
    documents.push_back({"long", Prose(220, 77)});
    // The second window's last run is of five rows: few, whose arithmetic is another.
    const uint64_t window = kSegmentRule.window_tokens;
    documents.push_back(
        OfTokens("few", window + kRunTokens - kSegmentRule.overlap_tokens + 5, 'q'));
    documents.push_back({"after", Prose(3, 78)});
    return documents;
  }
};

TEST_F(SegmentedPackingTest, ADocumentHasTheSameBytesWhateverItWasPackedWith) {
  const auto documents = ManyDocuments();
  for (const std::string format : {"bf16", "cq4"}) {
    kv_format_ = format;
    IngestSegmented("all", documents);
    std::vector<std::string> expected;
    for (size_t i = 0; i < documents.size(); ++i) expected.push_back(BytesOfSource("all", i));
    ASSERT_TRUE(store_->RemoveCorpus("all").ok());
    for (size_t i = 0; i < documents.size(); ++i) {
      const PrefillProgress alone = IngestSegmented("alone", {documents[i]});
      EXPECT_EQ(alone.reused_tokens, 0u);
      EXPECT_EQ(BytesOfSource("alone", 0), expected[i]) << format << " " << documents[i].path;
      ASSERT_TRUE(store_->RemoveCorpus("alone").ok());
    }
  }
}

TEST_F(SegmentedPackingTest, AnUpdateComputesChangedDocumentsToTheBytesOfAFreshCorpus) {
  kv_format_ = "cq4";
  auto documents = ManyDocuments();
  IngestSegmented("c", documents);
  for (size_t i = 0; i < documents.size(); i += 3) documents[i].text += "And more.";
  Update("c", documents);
  const std::string updated = BytesOf("c");
  for (const char* name : {"c", "c~previous"}) ASSERT_TRUE(store_->RemoveCorpus(name).ok());
  EXPECT_EQ(IngestSegmented("fresh", documents).reused_tokens, 0u);
  EXPECT_EQ(BytesOf("fresh"), updated);
}

}  // namespace
}  // namespace corpusd
