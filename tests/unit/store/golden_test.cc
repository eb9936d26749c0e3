// Files of version 1, as a program in another language writes them (tests/golden/make_bundle.py),
// and data folders of schemas 2 and 3: every later version must read them.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "store/block_header.h"
#include "store/bundle_reader.h"
#include "store/bundle_writer.h"
#include "store/catalog_families.h"
#include "store/rocks_database.h"
#include "tests/unit/store/store_fixture.h"

namespace corpusd {
namespace {

std::string ReadGolden(const std::string& name) {
  std::ifstream file("tests/golden/" + name, std::ios::binary);
  EXPECT_TRUE(file.is_open()) << name;
  return {std::istreambuf_iterator<char>(file), {}};
}

const std::vector<TokenId> kTokens = {11, 7, 49151, 0, 3, 3, 5, 8, 13, 21};
const std::vector<IdentityField> kIdentity = {
    {"schema", "1"}, {"weights", "ab12"}, {"kv_format", "kv1;golden"}, {"mode", "exact"}};
constexpr uint32_t kBlockTokens = 4, kSections = 2;
constexpr size_t kBlockBytes = 256;

std::vector<std::byte> Payload(size_t index) {
  std::vector<std::byte> bytes;
  for (size_t i = 0; i < kBlockBytes; ++i) {
    bytes.push_back(static_cast<std::byte>(i * 7 + index * 31));
  }
  return bytes;
}

class GoldenFolder : public StoreFixture, public ::testing::WithParamInterface<const char*> {};

class GoldenSink : public BundleSink {
 public:
  Status OnHead(const BundleHead& got) override {
    head = got;
    return OkStatus();
  }
  Status OnTokens(std::vector<TokenId> got) override {
    tokens = std::move(got);
    return OkStatus();
  }
  Status OnBlock(uint64_t index, const BlockHeader& header,
                 std::span<const std::byte> payload) override {
    const auto expected = Payload(index);
    EXPECT_TRUE(std::equal(payload.begin(), payload.end(), expected.begin(), expected.end()));
    digests.push_back(header.digest);
    return OkStatus();
  }
  Status OnEnd() override { return OkStatus(); }

  BundleHead head;
  std::vector<TokenId> tokens;
  std::vector<Digest> digests;
};

TEST(Golden, ABundleOfVersion1IsRead) {
  const std::string bytes = ReadGolden("bundle_v1.bin");
  GoldenSink sink;
  BundleReader reader(sink);
  const Status read = reader.Feed(std::as_bytes(std::span(bytes)));
  ASSERT_TRUE(read.ok()) << read.ToString();
  ASSERT_TRUE(reader.complete());
  EXPECT_EQ(sink.head.name, "golden");
  EXPECT_EQ(sink.head.identity, kIdentity);
  EXPECT_EQ(sink.head.prefill_seconds, 1.5);
  EXPECT_EQ(sink.head.skipped_files, 2u);
  ASSERT_EQ(sink.head.sources.size(), 1u);
  EXPECT_EQ(sink.head.sources[0].bytes, 40u);
  EXPECT_EQ(sink.tokens, kTokens);
  EXPECT_EQ(sink.digests, BuildChain(ChainRoot(kIdentity), kTokens, kBlockTokens));
}

// What is written today is, part by part, what was written then; only zstd may differ.
TEST(Golden, TodaysBundleHasTheHeadOfVersion1) {
  const std::string golden = ReadGolden("bundle_v1.bin");
  GoldenSink sink;
  BundleReader reader(sink);
  ASSERT_TRUE(reader.Feed(std::as_bytes(std::span(golden))).ok());
  EXPECT_NE(golden.find(EncodeBundleHead(sink.head)), std::string::npos);
  EXPECT_EQ(golden.substr(0, kBundlePreludeBytes), EncodeBundlePrelude());
  BundleWriter writer(
      sink.head, kTokens,
      [](uint64_t index, const CorpusPart* /*part*/, std::vector<std::byte>* payload) {
        *payload = Payload(index);
        return OkStatus();
      });
  std::string bytes;
  Result<bool> more = true;
  while (more.ok() && *more) more = writer.Next(&bytes);
  ASSERT_TRUE(more.ok()) << more.status().ToString();
  EXPECT_EQ(writer.bytes(), bytes.size());
  GoldenSink again;
  BundleReader second(again);
  ASSERT_TRUE(second.Feed(std::as_bytes(std::span(bytes))).ok());
  EXPECT_TRUE(second.complete());
  EXPECT_EQ(again.digests, sink.digests);
}

TEST(Golden, ABlockHeaderOfVersion1IsReadAndWrittenByteForByte) {
  const std::string golden = ReadGolden("block_header_v1.bin");
  const auto header = DecodeBlockHeader(std::as_bytes(std::span(golden)));
  ASSERT_TRUE(header.ok()) << header.status().ToString();
  const auto payload = Payload(0);
  EXPECT_TRUE(VerifyPayload(*header, payload).ok());
  const auto chain = BuildChain(ChainRoot(kIdentity), kTokens, kBlockTokens);
  std::vector<std::byte> encoded;
  EncodeBlockHeader(MakeBlockHeader(chain[0], kBlockTokens, payload, kSections), &encoded);
  ASSERT_EQ(encoded.size(), golden.size());
  EXPECT_EQ(std::memcmp(encoded.data(), golden.data(), golden.size()), 0);
}

// A data folder as the last version with its schema left it: two corpora that begin alike, by a
// daemon over a tiny model.
TEST_P(GoldenFolder, IsReadWholeAndBroughtUpToDate) {
  store_.reset();
  std::filesystem::remove_all(folder_);
  std::filesystem::create_directory(folder_);
  const std::string unpack =
      std::string("tar -xzf tests/golden/") + GetParam() + ".tar.gz -C " + folder_;
  ASSERT_EQ(std::system(unpack.c_str()), 0);
  for (int opening = 0; opening < 2; ++opening) {
    Reopen();
    ASSERT_NE(store_, nullptr);
    const auto records = store_->ListCorpora();
    ASSERT_EQ(records.size(), 2u);
    EXPECT_EQ(records[0].name, "begins-alike");
    EXPECT_EQ(records[1].name, "golden");
    EXPECT_GT(records[1].last_used_at_ms, 0);
    EXPECT_EQ(records[0].chain.front(), records[1].chain.front());
    for (const CorpusRecord& record : records) {
      EXPECT_EQ(record.state, CorpusState::kReady);
      EXPECT_EQ(record.mode, "exact");
      EXPECT_EQ(record.segments, SegmentRule{});
      const auto tokens = store_->CorpusTokens(record.name);
      ASSERT_TRUE(tokens.ok()) << tokens.status().ToString();
      EXPECT_EQ(*store_->LongestPrefix(record.chain, *tokens), record.chain.size());
      const auto report = store_->Verify(record.name, nullptr);
      ASSERT_TRUE(report.ok()) << report.status().ToString();
      EXPECT_EQ(report->blocks, record.chain.size());
      EXPECT_TRUE(report->damaged.empty() && report->missing.empty());
    }
    for (const std::string& line : store_->Diagnose()) {
      EXPECT_FALSE(line.starts_with("error")) << line;
    }
  }
  store_.reset();
  const auto catalog =
      RocksDatabase::Open(folder_ + "/catalog", RocksDatabase::Use::kCatalog, FamilyNames());
  ASSERT_TRUE(catalog.ok()) << catalog.status().ToString();
  EXPECT_EQ(*(*catalog)->Get(kMeta, "schema"), kSchema) << "an older version would read it";
}

INSTANTIATE_TEST_SUITE_P(Schemas, GoldenFolder,
                         ::testing::Values("data_folder_v2", "data_folder_v3"),
                         [](const auto& schema) { return std::string(schema.param); });

}  // namespace
}  // namespace corpusd
