// Parts: blocks of the layers that do not see everything, kept of some blocks of a chain only. They
// come, stay and go with their corpus's record, in its write batches.
#include <algorithm>
#include <map>
#include <set>

#include "store/catalog_families.h"
#include "store/rocks_database.h"
#include "tests/unit/store/store_fixture.h"

namespace corpusd {
namespace {

constexpr uint64_t kPartBytes = kTestPartBytes;
constexpr uint64_t kChunkBlocks = 4;

class CorpusPartsTest : public StoreFixture {
 protected:
  void SetUp() override {
    chunk_blocks_ = kChunkBlocks;
    StoreFixture::SetUp();
  }

  static std::vector<BlockRange> Tail(uint64_t blocks) { return ChunkTail(blocks, kChunkBlocks); }

  CorpusRecord Ingest(const std::string& name, const TestCorpus& corpus) {
    auto record = *Create(name, corpus);
    for (size_t end = 1; end <= corpus.chain.size(); ++end) {
      auto published = PublishTo(record, corpus, end);
      EXPECT_TRUE(published.ok()) << published.status().ToString();
      record = *published;
    }
    record.state = CorpusState::kReady;
    return *store_->UpdateCorpus(record);
  }

  bool Stored(const Digest& block) const {
    const Digest part = PartDigest(block, "c32");
    return store_->Presence({&part, 1})->front() == BlockPresence::kStored;
  }

  // Of which blocks the part is stored.
  std::vector<uint64_t> StoredParts(const TestCorpus& corpus) const {
    std::vector<uint64_t> stored;
    for (uint64_t b = 0; b < corpus.chain.size(); ++b) {
      if (Stored(corpus.chain[b])) stored.push_back(b);
    }
    return stored;
  }

  void ExpectConsistent() {
    for (const std::string& line : store_->Diagnose()) {
      EXPECT_FALSE(line.starts_with("error")) << line;
    }
    for (const CorpusRecord& record : store_->ListCorpora()) {
      const auto report = store_->Verify(record.name, nullptr);
      ASSERT_TRUE(report.ok()) << report.status().ToString();
      EXPECT_TRUE(report->damaged.empty() && report->missing.empty()) << record.name;
      EXPECT_EQ(report->blocks, record.chain.size() + HeldParts(record).size());
    }
  }

  std::string Schema() {
    store_.reset();
    auto database =
        RocksDatabase::Open(folder_ + "/catalog", RocksDatabase::Use::kCatalog, FamilyNames());
    EXPECT_TRUE(database.ok());
    std::string schema = *(*database)->Get(kMeta, "schema");
    database->reset();
    Reopen();
    return schema;
  }
};

TEST_F(CorpusPartsTest, ADigestFollowsFromBlockAndKind) {
  const TestCorpus corpus = MakeCorpus(1, 2);
  const std::set<Digest> digests = {
      corpus.chain[0], PartDigest(corpus.chain[0], "c32"), PartDigest(corpus.chain[0], "w32"),
      PartDigest(corpus.chain[1], "c32"), PartDigest(corpus.chain[1], "w32")};
  EXPECT_EQ(digests.size(), 5u);
  // SHA-256 over "corpusd.part.v1", "c8192" (each after its length, u64) and 32 zero bytes.
  EXPECT_EQ(PartDigest(Digest{}, "c8192").Hex(),
            "709e0179a2d9f142afd31797ec681eca6bef6a2ceb9a44bbd5cda810fbeb6b61");
}

TEST_F(CorpusPartsTest, APublishKeepsWhatTheRecordSaysAndLetsTheRestGo) {
  const TestCorpus corpus = MakeCorpus(1, 10);
  CorpusRecord record = *Create("a", corpus);
  const std::map<size_t, std::vector<uint64_t>> expected = {
      {3, {0, 1, 2}}, {4, {}}, {7, {4, 5, 6}}, {10, {8, 9}}};
  for (const auto& [end, blocks] : expected) {
    auto published = PublishTo(record, corpus, end);
    ASSERT_TRUE(published.ok()) << published.status().ToString();
    record = *published;
    EXPECT_EQ(StoredParts(corpus), blocks) << end;
    const CorpusUsage usage = store_->UsageOf(record);
    EXPECT_EQ(usage.part_bytes, blocks.size() * kPartBytes);
    EXPECT_EQ(usage.stored_bytes, end * kTestBlockBytes + usage.part_bytes);
    ExpectConsistent();
  }
  Reopen();
  EXPECT_EQ(store_->GetCorpus("a")->parts, record.parts);
  FetchStats stats;
  const auto digests = PartDigests(record);
  const auto refs = store_->Fetch(digests, &stats);
  ASSERT_TRUE(refs.ok());
  for (size_t i = 0; i < digests.size(); ++i) {
    const auto payload = PayloadOf(digests[i], kPartBytes);
    EXPECT_TRUE(std::equal(payload.begin(), payload.end(), (*refs)[i].bytes().begin(),
                           (*refs)[i].bytes().end()));
  }
}

TEST_F(CorpusPartsTest, TheSpaceOfAnEndedChunkComesBackAtOnce) {
  const TestCorpus corpus = MakeCorpus(1, 10);
  Ingest("a", corpus);
  // A page each for headers, and some for the segment.
  const uint64_t blocks = 10 * (kTestBlockBytes + 4096), parts = 2 * (kPartBytes + 4096);
  EXPECT_LE(SegmentDiskBytes(), blocks + parts + 4 * 4096);
}

TEST_F(CorpusPartsTest, APublishThatFailsLeavesTheOldParts) {
  const TestCorpus corpus = MakeCorpus(1, 6);
  CorpusRecord record = *PublishTo(*Create("a", corpus), corpus, 3);
  for (const char* const point : {"payload.write", "catalog.write"}) {
    ArmFault(point, FaultKind::kIoError, 0, 1);
    EXPECT_FALSE(PublishTo(record, corpus, 6).ok()) << point;
    DisarmFaults();
    Reopen();
    EXPECT_EQ(StoredParts(corpus), (std::vector<uint64_t>{0, 1, 2})) << point;
    ExpectConsistent();
    record = *store_->GetCorpus("a");
  }
  ASSERT_TRUE(PublishTo(record, corpus, 6).ok());
  EXPECT_EQ(StoredParts(corpus), (std::vector<uint64_t>{4, 5}));
}

TEST_F(CorpusPartsTest, WhatARecordDoesNotBringIsRefused) {
  const TestCorpus corpus = MakeCorpus(1, 3);
  CorpusRecord record = *Create("a", corpus);
  const auto payload = PayloadOf(corpus.chain[0]);
  const std::vector<TokenId> tokens(corpus.tokens.begin(),
                                    corpus.tokens.begin() + kTestBlockTokens);
  const BlockWrite write{corpus.chain[0], tokens, payload, kTestSections, {}};
  record.parts[0].held = {{0, 1}};
  EXPECT_EQ(store_->Publish(record, {&write, 1}).status().code(), StatusCode::kInvalidArgument);
  record.parts[0].held = {{0, 2}};
  EXPECT_EQ(store_->Publish(record, {&write, 1}).status().code(), StatusCode::kInvalidArgument);
}

TEST_F(CorpusPartsTest, CorporaShareParts) {
  const TestCorpus corpus = MakeCorpus(1, 7);
  const CorpusRecord first = Ingest("a", corpus);
  CorpusRecord second = *Create("b", corpus);
  second.parts[0].held = Tail(7);
  const auto adopted = store_->AdoptBlocks(second, corpus.chain);
  ASSERT_TRUE(adopted.ok()) << adopted.status().ToString();
  EXPECT_EQ(adopted->parts, first.parts);
  ASSERT_TRUE(store_->RemoveCorpus("a").ok());
  EXPECT_EQ(StoredParts(corpus), (std::vector<uint64_t>{4, 5, 6}));
  ExpectConsistent();
  CorpusRecord third = *Create("c", corpus);
  third.parts[0].held = Tail(3);  // not stored: their chunk has ended
  const auto some = std::span(corpus.chain).first(3);
  EXPECT_EQ(store_->AdoptBlocks(third, some).status().code(), StatusCode::kNotFound);
  ASSERT_TRUE(store_->RemoveCorpus("b").ok());
  EXPECT_TRUE(StoredParts(corpus).empty());
  ExpectConsistent();
}

TEST_F(CorpusPartsTest, PartsGoWithTheirBlocks) {
  const TestCorpus corpus = MakeCorpus(1, 7);
  CorpusRecord record = Ingest("a", corpus);
  record.chain.resize(5);
  record.durable_tokens = 5 * kTestBlockTokens;
  const auto shorter = store_->UpdateCorpus(record);
  ASSERT_TRUE(shorter.ok());
  EXPECT_EQ(shorter->parts[0].held, (std::vector<BlockRange>{{4, 5}}));
  EXPECT_EQ(StoredParts(corpus), (std::vector<uint64_t>{4}));
  ExpectConsistent();
  const auto dry = store_->Evict("a", TierKind::kDisk, true);
  const auto gone = store_->Evict("a", TierKind::kDisk, false);
  ASSERT_TRUE(dry.ok() && gone.ok());
  EXPECT_EQ(gone->bytes, 5 * kTestBlockBytes + kPartBytes);
  EXPECT_EQ(dry->bytes, gone->bytes);
  EXPECT_EQ(store_->EvictionNotes().back().bytes, gone->bytes);
  EXPECT_TRUE(StoredParts(corpus).empty());
  EXPECT_TRUE(store_->GetCorpus("a")->parts[0].held.empty());
  ExpectConsistent();
}

TEST_F(CorpusPartsTest, EvictionByPolicyCountsParts) {
  const TestCorpus corpus = MakeCorpus(1, 7);
  Ingest("a", corpus);
  const auto plan = store_->EvictByPolicy(TierKind::kDisk, kTestBlockBytes + 1, false);
  ASSERT_TRUE(plan.ok());
  ASSERT_EQ(plan->steps.size(), 1u);
  EXPECT_EQ(plan->steps[0].keep_blocks, 6u) << "one block and its part are enough";
  EXPECT_EQ(plan->bytes, kTestBlockBytes + kPartBytes);
  EXPECT_EQ(store_->GetCorpus("a")->parts[0].held, (std::vector<BlockRange>{{4, 6}}));
  ExpectConsistent();
}

TEST_F(CorpusPartsTest, ADamagedPartIsFoundAndRepaired) {
  const TestCorpus corpus = MakeCorpus(1, 6);
  Ingest("a", corpus);
  const Digest part = PartDigest(corpus.chain[5], "c32");
  ASSERT_TRUE(FlipByteOf(part));
  Reopen();
  const auto report = store_->Verify("a", nullptr);
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->damaged, std::vector<Digest>{part});
  EXPECT_EQ(store_->Presence({&part, 1})->front(), BlockPresence::kQuarantined);
  const auto payload = PayloadOf(part, kPartBytes);
  const auto first = corpus.tokens.begin() + 5 * kTestBlockTokens;
  ASSERT_TRUE(
      store_->Repair({part, {first, first + kTestBlockTokens}, payload, kTestPartSections, {}})
          .ok());
  ExpectConsistent();
}

TEST_F(CorpusPartsTest, PinsAndTiersCountParts) {
  const TestCorpus corpus = MakeCorpus(1, 7);
  CorpusRecord record = Ingest("a", corpus);
  record.pin = CorpusPin{static_cast<uint8_t>(TierKind::kHost), 0, "me", "", 0};
  record = *store_->UpdateCorpus(record);
  const auto digests = AllDigests(record);
  FetchStats stats;
  ASSERT_TRUE(store_->Fetch(digests, &stats).ok());
  EXPECT_EQ(store_->UsageOf(record).host_bytes, 7 * kTestBlockBytes + 3 * kPartBytes);
  EXPECT_EQ(store_->Usage()[0].pinned_bytes, store_->UsageOf(record).host_bytes);
  record.pin.reset();
  record = *store_->UpdateCorpus(record);
  const auto dropped = store_->Evict("a", TierKind::kHost, false);
  ASSERT_TRUE(dropped.ok());
  EXPECT_EQ(dropped->bytes, 7 * kTestBlockBytes + 3 * kPartBytes);
}

// Folders without such corpora stay what older versions read.
TEST_F(CorpusPartsTest, TheSchemaChangesWithTheFirstCorpusThatHasParts) {
  const TestCorpus corpus = MakeCorpus(1, 3);
  chunk_blocks_ = 0;
  Ingest("plain", corpus);
  EXPECT_EQ(Schema(), "4");
  chunk_blocks_ = kChunkBlocks;
  Ingest("a", MakeCorpus(2, 3));
  EXPECT_EQ(Schema(), "5");
  ExpectConsistent();
}

// Random corpora that share prefixes grow, shrink, adopt and go: what is stored is what records
// keep, always.
TEST_F(CorpusPartsTest, WhatIsStoredIsWhatRecordsKeep) {
  std::mt19937 random(7);
  std::map<std::string, TestCorpus> corpora;
  for (int step = 0; step < 250; ++step) {
    const std::string name(1, static_cast<char>('a' + random() % 4));
    if (!corpora.contains(name)) {
      corpora[name] = MakeCorpus(random() % 3, 1 + random() % 12, random() % 9);
      ASSERT_TRUE(Create(name, corpora[name]).ok());
      continue;
    }
    const TestCorpus& corpus = corpora[name];
    CorpusRecord record = *store_->GetCorpus(name);
    const size_t size = record.chain.size(), whole = corpus.chain.size();
    switch (random() % 6) {
      case 0:
      case 1:
        if (size < whole) {
          ASSERT_TRUE(PublishTo(record, corpus, size + 1 + random() % (whole - size)).ok());
        }
        break;
      case 2:
        record.chain.resize(random() % (size + 1));
        record.durable_tokens = record.chain.size() * kTestBlockTokens;
        ASSERT_TRUE(store_->UpdateCorpus(record).ok());
        break;
      case 3: {
        const size_t known = *store_->LongestPrefix(corpus.chain, corpus.tokens);
        if (known <= size) break;
        record.parts[0].held = Tail(known);
        const auto more = std::span(corpus.chain).subspan(size, known - size);
        const auto adopted = store_->AdoptBlocks(record, more);
        ASSERT_TRUE(adopted.ok() || adopted.status().code() == StatusCode::kNotFound);
        break;
      }
      case 4:
        ASSERT_TRUE(store_->RemoveCorpus(name).ok());
        corpora.erase(name);
        break;
      case 5:
        Reopen();
        break;
    }
    std::set<Digest> kept;
    for (const CorpusRecord& each : store_->ListCorpora()) {
      for (const Digest& digest : PartDigests(each)) kept.insert(digest);
    }
    for (const auto& [other, its] : corpora) {
      for (const Digest& block : its.chain) {
        ASSERT_EQ(Stored(block), kept.contains(PartDigest(block, "c32"))) << step;
      }
    }
    ExpectConsistent();
  }
}

}  // namespace
}  // namespace corpusd
