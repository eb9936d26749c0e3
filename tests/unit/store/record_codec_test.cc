#include "store/record_codec.h"

#include <gtest/gtest.h>

#include <numeric>

#include "store/key_codec.h"

namespace corpusd {
namespace {

CorpusRecord FullRecord() {
  CorpusRecord record;
  record.id = 7;
  record.generation = 3;
  record.name = "filings";
  record.mode = "exact";
  record.state = CorpusState::kFailed;
  record.error = "out of \"space\"";
  record.tokens = 1'000'000'007;
  record.durable_tokens = 128;
  record.kv_format = "bf16";
  record.block_bytes = 2'949'120;
  record.bf16_bytes = uint64_t{1} << 40;
  record.identity = {{"schema", "1"}, {"weights", "abc"}};
  record.root = ChainRoot(record.identity);
  record.pin = CorpusPin{1, 1'900'000'000'000, "alice", "the audit", 8};
  record.priority = RetentionPriority::kLow;
  record.whole_blocks = 11;
  record.expires_at_ms = 5;
  record.created_at_ms = 6;
  record.last_used_at_ms = 7;
  record.prefill_seconds = 1.5;
  record.resumed_times = 2;
  record.skipped_files = 9;
  record.segments = {4096, 512};
  record.roots = {"/srv/filings", "notes"};
  record.replaces = "filings of 2025";
  return record;
}

TEST(RecordCodec, EveryFieldOfARecordComesBack) {
  const CorpusRecord record = FullRecord();
  const auto decoded = DecodeRecord(EncodeRecord(record));
  ASSERT_TRUE(decoded.ok()) << decoded.status().ToString();
  EXPECT_EQ(EncodeRecord(*decoded), EncodeRecord(record));
  EXPECT_EQ(decoded->id, record.id);
  EXPECT_EQ(decoded->state, record.state);
  EXPECT_EQ(decoded->error, record.error);
  EXPECT_EQ(decoded->tokens, record.tokens);
  EXPECT_EQ(decoded->identity, record.identity);
  EXPECT_EQ(decoded->root, record.root);
  EXPECT_EQ(decoded->pin, record.pin);
  EXPECT_EQ(decoded->priority, RetentionPriority::kLow);
  EXPECT_EQ(decoded->whole_blocks, 11u);
  EXPECT_EQ(decoded->prefill_seconds, 1.5);
  EXPECT_EQ(decoded->segments, (SegmentRule{4096, 512}));
  EXPECT_EQ(decoded->roots, record.roots);
  EXPECT_EQ(decoded->replaces, "filings of 2025");
}

// A record as the first version wrote it, without what pins have learned since.
TEST(RecordCodec, AnOlderPinHasNoOwnerAndAnOlderRecordIsOfNormalPriorityAndExact) {
  const std::string root(64, '0');
  const auto record = DecodeRecord(R"({"version":1,"id":1,"name":"a","root":")" + root +
                                   R"(","pin":{"tier":2,"expires_at_ms":5}})");
  ASSERT_TRUE(record.ok()) << record.status().ToString();
  EXPECT_EQ(record->pin, (CorpusPin{2, 5}));
  EXPECT_EQ(record->priority, RetentionPriority::kNormal);
  EXPECT_EQ(record->whole_blocks, 0u);
  EXPECT_EQ(record->segments, SegmentRule{});
  EXPECT_TRUE(record->roots.empty() && record->replaces.empty());
  EXPECT_EQ(EncodeRecord(*record).find("segments"), std::string::npos);
}

TEST(RecordCodec, DamagedRecordsAreCorruption) {
  const std::string whole = EncodeRecord(FullRecord());
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_EQ(DecodeRecord(whole.substr(0, size)).status().code(), StatusCode::kCorruption);
  }
  for (const char* const bad :
       {"[]", "{}", R"({"version":2})", R"({"version":1,"root":7})",
        R"({"version":1,"root":"00","id":1})", R"({"version":1,"root":null,"tokens":"many"})"}) {
    EXPECT_EQ(DecodeRecord(bad).status().code(), StatusCode::kCorruption) << bad;
  }
  const std::string good = R"({"version":1,"root":")" + std::string(64, '0') + "\"";
  ASSERT_TRUE(DecodeRecord(good + "}").ok());
  for (const char* const bad : {R"("segments":{})", R"("segments":7)", R"("roots":[7])",
                                R"("roots":"a")", R"("replaces":[])"}) {
    EXPECT_EQ(DecodeRecord(good + "," + bad + "}").status().code(), StatusCode::kCorruption) << bad;
  }
}

TEST(RecordCodec, SourcesComeBackAndPathsMayHoldAnyBytes) {
  const std::vector<CorpusSource> sources = {{"a/b.txt", 0, 10, 55, "ab"}, {"c", 10, 3, 9, ""}};
  EXPECT_EQ(*DecodeSources(EncodeSources(sources)), sources);
  EXPECT_TRUE(
      DecodeSources(EncodeSources(std::vector<CorpusSource>{{"bad\xff\xfe", 0, 1, 1, ""}})).ok());
  EXPECT_EQ(DecodeSources("{").status().code(), StatusCode::kCorruption);
  EXPECT_EQ(DecodeSources("[1]").status().code(), StatusCode::kCorruption);
}

TEST(RecordCodec, ChainEntriesComeBackAndImpossibleOnesAreRefused) {
  const ChainEntry entry{{5, 6}, {ChainRoot({}), 9}, 4096, 128, 30, 2, true};
  const std::string bytes = EncodeChainEntry(entry);
  const auto decoded = DecodeChainEntry(bytes);
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(decoded->location, entry.location);
  EXPECT_EQ(decoded->place.group, entry.place.group);
  EXPECT_EQ(decoded->place.position, 9u);
  EXPECT_EQ(decoded->payload_bytes, 4096u);
  EXPECT_EQ(decoded->tokens, 128u);
  EXPECT_EQ(decoded->sections, 30u);
  EXPECT_EQ(decoded->references, 2u);
  EXPECT_TRUE(decoded->quarantined);
  EXPECT_FALSE(DecodeChainEntry(bytes.substr(1)).ok());
  EXPECT_FALSE(DecodeChainEntry("\x02" + bytes.substr(1)).ok());
  for (const ChainEntry& bad :
       {ChainEntry{{1, 1}, {}, 0, 1, 1, 1, false}, ChainEntry{{1, 1}, {}, 1, 0, 1, 1, false},
        ChainEntry{{1, 1}, {}, 1, 1, 1, 0, false},
        ChainEntry{{1, 1}, {}, uint64_t{1} << 50, 1, 1, 1, false}}) {
    EXPECT_EQ(DecodeChainEntry(EncodeChainEntry(bad)).status().code(), StatusCode::kCorruption);
  }
}

TEST(RecordCodec, TokensComeBackCompressedAndLiesAboutTheirSizeAreRefused) {
  std::vector<TokenId> tokens(kTokensPerChunk);
  std::iota(tokens.begin(), tokens.end(), 0);
  const std::string bytes = EncodeTokens(tokens);
  EXPECT_LT(bytes.size(), tokens.size() * sizeof(TokenId));
  std::vector<TokenId> decoded = {42};
  ASSERT_TRUE(DecodeTokens(bytes, &decoded).ok());
  EXPECT_EQ(decoded.size(), tokens.size() + 1);  // appended
  EXPECT_TRUE(std::equal(tokens.begin(), tokens.end(), decoded.begin() + 1));
  EXPECT_FALSE(DecodeTokens("", &decoded).ok());
  EXPECT_FALSE(DecodeTokens("not zstd", &decoded).ok());
  EXPECT_FALSE(DecodeTokens(bytes.substr(0, bytes.size() / 2), &decoded).ok());
  tokens.push_back(1);
  EXPECT_FALSE(DecodeTokens(EncodeTokens(tokens), &decoded).ok());  // larger than any chunk
}

TEST(KeyCodec, KeysSortAsTheirNumbers) {
  EXPECT_LT(KeyOf(1, 255), KeyOf(1, 256));
  EXPECT_LT(KeyOf(255), KeyOf(256));
  EXPECT_LT(KeyOf(1, UINT32_MAX), KeyOf(2, 0));
  uint64_t a = 0;
  uint32_t b = 0;
  EXPECT_TRUE(ReadBigEndian(KeyOf(258, 7), 0, &a) && ReadBigEndian(KeyOf(258, 7), 8, &b));
  EXPECT_EQ(a, 258u);
  EXPECT_EQ(b, 7u);
  EXPECT_FALSE(ReadBigEndian("short", 0, &a));
}

}  // namespace
}  // namespace corpusd
