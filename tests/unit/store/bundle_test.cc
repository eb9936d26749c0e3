// Bundles from one store into another: whole, cut off, damaged, forged, for another model.
#include <gmock/gmock.h>

#include <cstring>

#include "store/base/crc32c.h"
#include "tests/unit/store/bundle_fixture.h"

namespace corpusd {
namespace {

using ::testing::HasSubstr;
using BundleTest = BundleFixture;

// Takes everything and keeps nothing: for the reader alone.
class NullSink : public BundleSink {
 public:
  Status OnHead(const BundleHead& /*head*/) override { return OkStatus(); }
  Status OnTokens(std::vector<TokenId> /*tokens*/) override { return OkStatus(); }
  Status OnBlock(uint64_t /*index*/, const BlockHeader& /*header*/,
                 std::span<const std::byte> /*payload*/) override {
    ++blocks;
    return OkStatus();
  }
  Status OnEnd() override { return OkStatus(); }
  uint64_t blocks = 0;
};

Status ReadAll(std::string_view bytes, size_t piece = 5000) {
  NullSink sink;
  BundleReader reader(sink);
  for (size_t at = 0; at < bytes.size(); at += piece) {
    RETURN_IF_ERROR(reader.Feed(std::as_bytes(std::span(bytes.substr(at, piece)))));
  }
  return reader.Finish();
}

// Where the records of a bundle begin, header and body.
struct Place {
  BundleRecord record;
  size_t header = 0, body = 0;
};
std::vector<Place> Records(const std::string& bytes) {
  std::vector<Place> places;
  for (size_t at = kBundlePreludeBytes; at < bytes.size();) {
    const auto header = std::as_bytes(std::span(bytes)).subspan(at, kBundleRecordHeaderBytes);
    const auto record = DecodeBundleRecord(header);
    EXPECT_TRUE(record.ok());
    places.push_back({*record, at, at + kBundleRecordHeaderBytes});
    at += kBundleRecordHeaderBytes + record->stored_bytes;
  }
  return places;
}

// Puts another body into record `index`, uncompressed, with right checksums; seal: the SHA-256 too.
std::string WithBody(const std::string& bytes, size_t index, const std::string& body, bool seal) {
  std::string out = EncodeBundlePrelude();
  const auto places = Records(bytes);
  const auto put = [&](BundleRecord record, std::string_view content) {
    record.stored_bytes = content.size();
    record.body_crc = Crc32c(std::as_bytes(std::span(content)));
    out.append(EncodeBundleRecord(record)).append(content);
  };
  for (size_t i = 0; i + 1 < places.size(); ++i) {
    const Place& place = places[i];
    if (i == index) {
      put({place.record.kind, BundleEncoding::kRaw, 0, body.size(), 0}, body);
    } else {
      put(place.record, std::string_view(bytes).substr(place.body, place.record.stored_bytes));
    }
  }
  std::string end = bytes.substr(places.back().body);
  if (seal) {
    Sha256 hash;
    hash.Update(out);
    const Sha256Bytes digest = hash.Finish();
    end.replace(0, digest.size(), reinterpret_cast<const char*>(digest.data()), digest.size());
  }
  put(places.back().record, end);
  return out;
}

TEST_F(BundleTest, ACorpusMovesToAnotherStore) {
  const TestCorpus corpus = IngestFor("filings", "t", 5);
  const std::string bytes = Export("filings");
  for (const size_t piece : {size_t{1}, size_t{999}, bytes.size()}) {
    const std::string name = "copy" + std::to_string(piece);
    const Imported imported = Import(bytes, name, ShapeOfTenant("t"), piece);
    ASSERT_TRUE(imported.status.ok()) << imported.status.ToString();
    EXPECT_EQ(imported.record.state, CorpusState::kReady);
    EXPECT_EQ(imported.record.chain, corpus.chain);
    EXPECT_EQ(imported.record.durable_tokens, corpus.tokens.size());
    EXPECT_EQ(imported.record.sources.front().path, "a.txt");
  }
  OpenTarget();
  EXPECT_EQ(*target_->CorpusTokens("copy1"), corpus.tokens);
  store_ = std::move(target_);
  ExpectWhole(corpus.chain);
}

TEST_F(BundleTest, TheTenantStaysOutAndAnotherTenantGetsItsOwnDigests) {
  const TestCorpus corpus = IngestFor("filings", "salt-of-tenant-one", 3);
  const std::string bytes = Export("filings");
  EXPECT_EQ(bytes.find("salt-of-tenant-one"), std::string::npos);
  const std::string digest(corpus.chain[0].bytes.begin(), corpus.chain[0].bytes.end());
  EXPECT_EQ(bytes.find(digest), std::string::npos) << "a digest would commit to the salt";
  const Imported imported = Import(bytes, "", ShapeOfTenant("two"));
  ASSERT_TRUE(imported.status.ok()) << imported.status.ToString();
  EXPECT_EQ(imported.record.name, "filings");
  EXPECT_EQ(imported.record.chain,
            BuildChain(ChainRoot(IdentityOfTenant("two")), corpus.tokens, kTestBlockTokens));
  std::vector<std::byte> payload;
  uint32_t sections = 0;
  ASSERT_TRUE(target_->ReadBlock(imported.record.chain[1], &payload, &sections).ok());
  EXPECT_EQ(payload, PayloadOf(corpus.chain[1]));
  EXPECT_EQ(sections, kTestSections);
}

TEST_F(BundleTest, EveryChangedByteIsFound) {
  IngestFor("a", "t", 2);
  const std::string bytes = Export("a");
  ASSERT_TRUE(ReadAll(bytes).ok());
  std::mt19937 random(3);
  for (size_t n = 0; n < 1500; ++n) {
    // Every byte of the front, then anywhere, the end included.
    const size_t at = n < 700   ? n
                      : n < 800 ? bytes.size() - 1 - (n - 700)
                                : random() % bytes.size();
    std::string bad = bytes;
    bad[at] = static_cast<char>(bad[at] ^ (1 << random() % 8));
    EXPECT_FALSE(ReadAll(bad).ok()) << "byte " << at;
  }
  EXPECT_EQ(ReadAll(bytes + "x").code(), StatusCode::kCorruption);
  EXPECT_EQ(ReadAll("").code(), StatusCode::kCorruption);
  EXPECT_THAT(ReadAll("GGUF, not ours at all").message(), HasSubstr("no bundle of corpusd"));
}

TEST_F(BundleTest, AnInterruptedImportGoesOnFromItsWholeBlocks) {
  const TestCorpus corpus = IngestFor("filings", "t", 6);
  const std::string bytes = Export("filings");
  const auto places = Records(bytes);
  uint64_t before = 0;
  for (const size_t blocks : {1u, 3u, 5u}) {
    // In the middle of block `blocks`; records: head, tokens, blocks.
    const size_t cut = places[2 + blocks].body + 1000;
    const Imported part = Import(std::string_view(bytes).substr(0, cut), "", ShapeOfTenant("t"));
    EXPECT_EQ(part.status.code(), StatusCode::kCorruption);
    EXPECT_EQ(part.reused, before);
    const auto record = target_->GetCorpus("filings");
    ASSERT_TRUE(record.ok());
    EXPECT_EQ(record->state, CorpusState::kCancelled) << "not visible as ready before it is whole";
    EXPECT_EQ(record->chain.size(), blocks);
    EXPECT_THAT(record->error, HasSubstr("import the bundle again"));
    before = blocks;
    OpenTarget();
  }
  const Imported whole = Import(bytes, "", ShapeOfTenant("t"));
  ASSERT_TRUE(whole.status.ok()) << whole.status.ToString();
  EXPECT_EQ(whole.reused, 5u);
  EXPECT_EQ(whole.record.state, CorpusState::kReady);
  EXPECT_TRUE(whole.record.error.empty());
  store_ = std::move(target_);
  ExpectWhole(corpus.chain);
}

TEST_F(BundleTest, AnotherModelFormatOrSizeIsRefusedByField) {
  IngestFor("a", "t", 2);
  const std::string bytes = Export("a");
  for (size_t field = 0; field + 1 < ShapeOfTenant("t").identity.size(); ++field) {
    CorpusShape shape = ShapeOfTenant("t");
    shape.identity[field].value = "other";
    const Imported refused = Import(bytes, "", shape);
    EXPECT_EQ(refused.status.code(), StatusCode::kInvalidArgument);
    EXPECT_THAT(refused.status.message(), HasSubstr(shape.identity[field].name + ": bundle '"));
    EXPECT_THAT(refused.status.message(), HasSubstr("here 'other'"));
  }
  CorpusShape shape = ShapeOfTenant("t");
  shape.block_tokens = 256;
  shape.block_bytes = 1;
  const std::string both = Import(bytes, "", shape).status.message();
  EXPECT_THAT(both, HasSubstr("block tokens: bundle '8', here '256'; block bytes: bundle '65536'"));
  shape = ShapeOfTenant("t");
  shape.tokens_max = 15;
  EXPECT_THAT(Import(bytes, "", shape).status.message(), HasSubstr("at most 15"));
  shape = ShapeOfTenant("t");
  shape.vocabulary = 10;
  EXPECT_EQ(Import(bytes, "", shape).status.code(), StatusCode::kCorruption);
  std::string newer = bytes;
  newer[8] = 9;
  EXPECT_THAT(ReadAll(newer).message(), HasSubstr("version 9, this corpusd reads versions 1 to 3"));
  EXPECT_TRUE(target_->ListCorpora().empty()) << "a refused bundle leaves nothing";
}

// Every checksum of the file is made right again by the forger.
TEST_F(BundleTest, AForgedBundleCannotPutBytesUnderADigestOfItsChoice) {
  const TestCorpus corpus = IngestFor("a", "t", 3);
  const std::string bytes = Export("a");
  const auto places = Records(bytes);
  const std::vector<std::byte> evil(kTestBlockBytes, std::byte{66});
  const auto block_of = [&](const Digest& digest) {
    std::vector<std::byte> block;
    EncodeBlockHeader(MakeBlockHeader(digest, kTestBlockTokens, evil, kTestSections), &block);
    block.insert(block.end(), evil.begin(), evil.end());
    return std::string(reinterpret_cast<const char*>(block.data()), block.size());
  };
  const auto neutral =
      BuildChain(ChainRoot(WithoutTenant(IdentityOfTenant("t"))), corpus.tokens, kTestBlockTokens);
  const std::string other = WithBody(bytes, 3, block_of(neutral[2]), /*seal=*/true);
  EXPECT_THAT(Import(other, "x", ShapeOfTenant("t")).status.message(),
              HasSubstr("not the block that its tokens give"));
  std::vector<TokenId> tokens = corpus.tokens;
  tokens[0] ^= 1;
  const std::string ids(reinterpret_cast<const char*>(tokens.data()), tokens.size() * 4);
  const std::string swapped = WithBody(bytes, 1, ids, /*seal=*/true);
  EXPECT_THAT(Import(swapped, "y", ShapeOfTenant("t")).status.message(),
              HasSubstr("not the block that its tokens give"));
  BundleHead head = (*OpenExport(*store_, "a", "m", kTestBlockTokens))->head();
  head.root.bytes[0] ^= 1;
  const std::string rooted = WithBody(bytes, 0, EncodeBundleHead(head), /*seal=*/true);
  EXPECT_THAT(Import(rooted, "z", ShapeOfTenant("t")).status.message(),
              HasSubstr("does not follow from its identity"));
  // The whole blocks before the forgery may have come; they are what they should be.
  for (size_t i = 0; i < corpus.chain.size(); ++i) {
    std::vector<std::byte> payload;
    uint32_t sections = 0;
    const Status read = target_->ReadBlock(corpus.chain[i], &payload, &sections);
    EXPECT_EQ(read.ok(), i == 0) << i;
    if (read.ok()) {
      EXPECT_EQ(payload, PayloadOf(corpus.chain[i]));
    }
  }
}

TEST_F(BundleTest, WhenOnlyTheWholeHashDiffersNothingIsKept) {
  const TestCorpus corpus = IngestFor("a", "t", 3);
  const std::string bytes = Export("a");
  BundleHead head = (*OpenExport(*store_, "a", "m", kTestBlockTokens))->head();
  head.sources.front().path = "b.txt";
  const std::string forged = WithBody(bytes, 0, EncodeBundleHead(head), /*seal=*/false);
  const Imported refused = Import(forged, "", ShapeOfTenant("t"));
  EXPECT_EQ(refused.status.code(), StatusCode::kCorruption);
  EXPECT_THAT(refused.status.message(), HasSubstr("SHA-256"));
  EXPECT_EQ(target_->GetCorpus("a").status().code(), StatusCode::kNotFound);
  // Blocks that an earlier import had left stay.
  const size_t cut = Records(bytes)[4].header;
  (void)Import(std::string_view(bytes).substr(0, cut), "", ShapeOfTenant("t"));
  ASSERT_EQ(target_->GetCorpus("a")->chain.size(), 2u);
  (void)Import(forged, "", ShapeOfTenant("t"));
  EXPECT_EQ(target_->GetCorpus("a")->chain.size(), 2u);
  EXPECT_EQ(target_->GetCorpus("a")->state, CorpusState::kCancelled);
  ASSERT_TRUE(Import(bytes, "", ShapeOfTenant("t")).status.ok());
  EXPECT_EQ(target_->GetCorpus("a")->chain, corpus.chain);
}

TEST_F(BundleTest, ATakenNameIsRefusedAndACompleteCorpusToo) {
  IngestFor("a", "t", 2);
  const std::string bytes = Export("a");
  ASSERT_TRUE(Import(bytes, "", ShapeOfTenant("t")).status.ok());
  const Imported again = Import(bytes, "", ShapeOfTenant("t"));
  EXPECT_EQ(again.status.code(), StatusCode::kAlreadyExists);
  EXPECT_THAT(again.status.message(), HasSubstr("complete"));
  EXPECT_THAT(Import(bytes, "", ShapeOfTenant("u")).status.message(), HasSubstr("--name"));
  EXPECT_EQ(target_->GetCorpus("a")->state, CorpusState::kReady);
}

TEST_F(BundleTest, AFullDiskStopsAnImportThatThenGoesOn) {
  const TestCorpus corpus = IngestFor("a", "t", 4);
  const std::string bytes = Export("a");
  ArmFault("payload.write", FaultKind::kNoSpace, 0, 1000);
  const Imported full = Import(bytes, "", ShapeOfTenant("t"));
  EXPECT_EQ(full.status.code(), StatusCode::kResourceExhausted) << full.status.ToString();
  EXPECT_EQ(target_->GetCorpus("a")->state, CorpusState::kCancelled);
  DisarmFaults();
  ASSERT_TRUE(Import(bytes, "", ShapeOfTenant("t")).status.ok());
  EXPECT_EQ(target_->GetCorpus("a")->chain, corpus.chain);
}

TEST_F(BundleTest, ADamagedBlockIsNotExported) {
  const TestCorpus corpus = IngestFor("a", "t", 3);
  ASSERT_TRUE(FlipByteOf(corpus.chain[1]));
  Reopen();
  auto writer = OpenExport(*store_, "a", "tiny", kTestBlockTokens);
  ASSERT_TRUE(writer.ok());
  std::string bytes;
  Result<bool> more = true;
  while (more.ok() && *more) more = (*writer)->Next(&bytes);
  EXPECT_EQ(more.status().code(), StatusCode::kCorruption);
  EXPECT_EQ((*writer)->blocks(), 1u);
  // Once it is computed again, the same writer goes on.
  const auto payload = PayloadOf(corpus.chain[1]);
  const auto first = corpus.tokens.begin() + kTestBlockTokens;
  ASSERT_TRUE(
      store_->Repair({corpus.chain[1], {first, first + kTestBlockTokens}, payload, kTestSections})
          .ok());
  for (more = true; more.ok() && *more;) more = (*writer)->Next(&bytes);
  ASSERT_TRUE(more.ok()) << more.status().ToString();
  EXPECT_TRUE(ReadAll(bytes).ok());
}

TEST_F(BundleTest, OnlyAReadyCorpusIsExported) {
  ASSERT_TRUE(Create("a", MakeCorpus(1, 2)).ok());
  EXPECT_EQ(OpenExport(*store_, "a", "m", kTestBlockTokens).status().code(), StatusCode::kNotReady);
  EXPECT_EQ(OpenExport(*store_, "b", "m", kTestBlockTokens).status().code(), StatusCode::kNotFound);
}

}  // namespace
}  // namespace corpusd
