// Bundles of corpora with parts: each part behind its block, checked and stored like one.
#include <gmock/gmock.h>

#include "tests/unit/store/bundle_fixture.h"

namespace corpusd {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kPartBytes = 16 * 1024;
constexpr uint32_t kPartSections = 2;

class PartsBundleTest : public BundleFixture {
 protected:
  static std::vector<CorpusPart> Parts() {
    return {{"c32", kPartBytes, kPartSections, 4, {{4, 6}}},
            {"w9", 2 * kPartBytes, kPartSections, 4, {{1, 2}, {4, 6}}}};
  }
  static CorpusShape Shape(const std::string& tenant) {
    CorpusShape shape = ShapeOfTenant(tenant);
    shape.parts = Parts();
    for (CorpusPart& part : shape.parts) part.held.clear();
    return shape;
  }

  // A ready corpus of six blocks that keeps Parts().
  CorpusRecord IngestWithParts(const std::string& name) {
    TestCorpus corpus = MakeCorpus(7, 6);
    CorpusRecord record;
    record.name = name;
    record.mode = "exact";
    record.kv_format = "bf16";
    record.block_bytes = kTestBlockBytes;
    record.identity = IdentityOfTenant("a");
    record.root = ChainRoot(record.identity);
    corpus.chain = BuildChain(record.root, corpus.tokens, kTestBlockTokens);
    record.parts = Parts();
    record = *store_->CreateCorpus(record, corpus.tokens);
    std::vector<std::vector<std::byte>> payloads;
    for (const Digest& digest : corpus.chain) {
      payloads.push_back(PayloadOf(digest));
      payloads.push_back(PayloadOf(PartDigest(digest, "c32"), kPartBytes));
      payloads.push_back(PayloadOf(PartDigest(digest, "w9"), 2 * kPartBytes));
    }
    std::vector<BlockWrite> writes;
    for (size_t i = 0; i < 6; ++i) {
      const auto first = corpus.tokens.begin() + static_cast<ptrdiff_t>(i * kTestBlockTokens);
      writes.push_back({corpus.chain[i],
                        {first, first + kTestBlockTokens},
                        payloads[3 * i],
                        kTestSections,
                        {payloads[3 * i + 1], payloads[3 * i + 2]}});
    }
    record.parts = Parts();
    record = *store_->Publish(record, writes);
    record.state = CorpusState::kReady;
    return *store_->UpdateCorpus(record);
  }

  void ExpectSameParts(const CorpusRecord& source, const CorpusRecord& copy) {
    EXPECT_EQ(copy.parts, source.parts);
    const auto from = HeldParts(source), to = HeldParts(copy);
    ASSERT_EQ(from.size(), to.size());
    for (size_t i = 0; i < from.size(); ++i) {
      std::vector<std::byte> expected, payload;
      uint32_t sections = 0;
      ASSERT_TRUE(store_->ReadBlock(from[i].digest, &expected, &sections).ok());
      ASSERT_TRUE(target_->ReadBlock(to[i].digest, &payload, &sections).ok());
      EXPECT_EQ(payload, expected);
      EXPECT_EQ(sections, kPartSections);
    }
    for (const std::string& line : target_->Diagnose()) EXPECT_FALSE(line.starts_with("error"));
  }
};

TEST_F(PartsBundleTest, AnImportHasThePartsUnderItsOwnTenant) {
  const CorpusRecord source = IngestWithParts("a");
  const std::string bundle = Export("a");
  EXPECT_EQ(static_cast<uint8_t>(bundle[8]), kPartsBundleVersion);
  const Imported copy = Import(bundle, "", Shape("b"));
  ASSERT_TRUE(copy.status.ok()) << copy.status.ToString();
  EXPECT_NE(copy.record.chain, source.chain);
  ExpectSameParts(source, copy.record);
}

TEST_F(PartsBundleTest, AnImportThatWasCutOffGoesOn) {
  const CorpusRecord source = IngestWithParts("a");
  const std::string bundle = Export("a");
  for (size_t tenth = 1; tenth < 10; ++tenth) {
    const auto begun = std::string_view(bundle).substr(0, bundle.size() * tenth / 10);
    EXPECT_FALSE(Import(begun, "", Shape("a")).status.ok());
    for (const std::string& line : target_->Diagnose()) EXPECT_FALSE(line.starts_with("error"));
  }
  const Imported copy = Import(bundle, "", Shape("a"));
  ASSERT_TRUE(copy.status.ok()) << copy.status.ToString();
  EXPECT_GT(copy.reused, 0u);
  ExpectSameParts(source, copy.record);
}

TEST_F(PartsBundleTest, OtherPartsAreRefusedByName) {
  IngestWithParts("a");
  const std::string bundle = Export("a");
  CorpusShape shape = Shape("a");
  shape.parts.pop_back();
  const Status other = Import(bundle, "", shape).status;
  EXPECT_EQ(other.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(other.message(), HasSubstr("w9: 2 sections of 32768 bytes"));
  EXPECT_EQ(Import(bundle, "", ShapeOfTenant("a")).status.code(), StatusCode::kInvalidArgument);
}

TEST_F(PartsBundleTest, ADamagedPartIsFound) {
  IngestWithParts("a");
  std::string bundle = Export("a");
  // Shortly before the end record: in the last part.
  bundle[bundle.size() - 500] = static_cast<char>(bundle[bundle.size() - 500] ^ 1);
  const Imported copy = Import(bundle, "", Shape("a"));
  EXPECT_EQ(copy.status.code(), StatusCode::kCorruption);
  EXPECT_NE(target_->GetCorpus("a")->state, CorpusState::kReady);
}

TEST_F(PartsBundleTest, AHeadOfImpossiblePartsIsRefused) {
  IngestWithParts("a");
  const auto writer = OpenExport(*store_, "a", "tiny", kTestBlockTokens);
  ASSERT_TRUE(writer.ok());
  const BundleHead good = (*writer)->head();
  EXPECT_TRUE(DecodeBundleHead(EncodeBundleHead(good)).ok());
  const auto refused = [&](const std::function<void(BundleHead&)>& change) {
    BundleHead head = good;
    change(head);
    return DecodeBundleHead(EncodeBundleHead(head)).status().code() == StatusCode::kCorruption;
  };
  EXPECT_TRUE(refused([](BundleHead& head) { head.parts[0].held = {{4, 7}}; }));
  EXPECT_TRUE(refused([](BundleHead& head) { head.parts[0].held = {{4, 6}, {5, 6}}; }));
  EXPECT_TRUE(refused([](BundleHead& head) { head.parts[0].sections = 0; }));
  EXPECT_TRUE(refused([](BundleHead& head) { head.parts[0].block_bytes = uint64_t{1} << 40; }));
  EXPECT_TRUE(refused([](BundleHead& head) { head.parts[0].kind.clear(); }));
  EXPECT_TRUE(refused([](BundleHead& head) { head.parts.resize(65, head.parts[0]); }));
}

}  // namespace
}  // namespace corpusd
