#include "store/block_store.h"

#include <gtest/gtest.h>

#include <fstream>
#include <thread>

#include "tests/unit/store/store_fixture.h"

namespace corpusd {
namespace {

using BlockStoreTest = StoreFixture;

TEST_F(BlockStoreTest, ACorpusSurvivesReopening) {
  const TestCorpus corpus = MakeCorpus(1, 5);
  const CorpusRecord record = Ingest("filings", corpus);
  Reopen();
  const auto found = store_->GetCorpus("filings");
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(found->chain, corpus.chain);
  EXPECT_EQ(found->state, CorpusState::kReady);
  EXPECT_EQ(found->generation, record.generation);
  EXPECT_EQ(found->durable_tokens, corpus.tokens.size());
  EXPECT_EQ(found->root, corpus.root);
  EXPECT_EQ(*store_->CorpusTokens("filings"), corpus.tokens);
  ExpectWhole(corpus.chain);
}

TEST_F(BlockStoreTest, BytesComeFromTheTierThatHasThem) {
  const TestCorpus corpus = MakeCorpus(1, 5);
  Ingest("a", corpus);
  FetchStats hot;
  ASSERT_TRUE(store_->Fetch(corpus.chain, &hot).ok());
  EXPECT_EQ(hot.host_bytes, 5 * kTestBlockBytes);
  EXPECT_EQ(hot.disk_bytes, 0u);
  Reopen();
  FetchStats cold;
  ASSERT_TRUE(store_->Fetch(corpus.chain, &cold).ok());
  EXPECT_EQ(cold.host_bytes, 0u);
  EXPECT_EQ(cold.disk_bytes, 5 * kTestBlockBytes);
}

TEST_F(BlockStoreTest, NamesAreUniqueAndRenameMovesThem) {
  const TestCorpus corpus = MakeCorpus(1, 2);
  Ingest("a", corpus);
  EXPECT_EQ(Create("a", corpus).status().code(), StatusCode::kAlreadyExists);
  ASSERT_TRUE(store_->RenameCorpus("a", "b").ok());
  EXPECT_EQ(store_->GetCorpus("a").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(store_->RenameCorpus("a", "c").code(), StatusCode::kNotFound);
  Ingest("c", MakeCorpus(2, 1));
  EXPECT_EQ(store_->RenameCorpus("b", "c").code(), StatusCode::kAlreadyExists);
  Reopen();
  ASSERT_EQ(store_->ListCorpora().size(), 2u);
  EXPECT_EQ(store_->ListCorpora()[0].name, "b");
  ExpectWhole(corpus.chain);
}

TEST_F(BlockStoreTest, AStaleGenerationIsAborted) {
  const TestCorpus corpus = MakeCorpus(1, 2);
  const auto record = Create("a", corpus);
  ASSERT_TRUE(record.ok());
  ASSERT_TRUE(store_->UpdateCorpus(*record).ok());
  EXPECT_EQ(store_->UpdateCorpus(*record).status().code(), StatusCode::kAborted);
  EXPECT_EQ(PublishTo(*record, corpus, 2).status().code(), StatusCode::kAborted);
  // What the aborted publish wrote is not kept.
  EXPECT_EQ(*store_->LongestPrefix(corpus.chain, corpus.tokens), 0u);
}

TEST_F(BlockStoreTest, LongestPrefixStopsAtTheFirstBlockThatIsNotThere) {
  const TestCorpus corpus = MakeCorpus(1, 6);
  const auto record = Create("a", corpus);
  ASSERT_TRUE(PublishTo(*record, corpus, 4).ok());
  EXPECT_EQ(*store_->LongestPrefix(corpus.chain, corpus.tokens), 4u);
  auto other_tokens = corpus.tokens;
  other_tokens[9] ^= 1;
  EXPECT_EQ(store_->LongestPrefix(corpus.chain, other_tokens).status().code(),
            StatusCode::kCorruption);
}

TEST_F(BlockStoreTest, SharedBlocksLiveUntilTheirLastCorpusGoes) {
  const TestCorpus a = MakeCorpus(1, 6, /*shared_blocks=*/3);
  const TestCorpus b = MakeCorpus(2, 6, /*shared_blocks=*/3);
  ASSERT_EQ(a.chain[2], b.chain[2]);
  ASSERT_NE(a.chain[3], b.chain[3]);
  Ingest("a", a);
  auto record = Create("b", b);
  record = store_->AdoptBlocks(*record, std::span(b.chain).first(3));
  ASSERT_TRUE(record.ok()) << record.status().ToString();
  ASSERT_TRUE(PublishTo(*record, b, 6).ok());
  ASSERT_TRUE(store_->RemoveCorpus("a").ok());
  ExpectWhole(b.chain);
  EXPECT_EQ(*store_->LongestPrefix(a.chain, a.tokens), 3u);
  Reopen();
  ExpectWhole(b.chain);
  ASSERT_TRUE(store_->RemoveCorpus("b").ok());
  EXPECT_EQ(*store_->LongestPrefix(b.chain, b.tokens), 0u);
}

TEST_F(BlockStoreTest, RemovingACorpusGivesItsSpaceBackAtOnce) {
  Ingest("small", MakeCorpus(1, 2));
  const uint64_t before = store_->Usage()[1].used_bytes;
  Ingest("large", MakeCorpus(2, 64));
  EXPECT_GT(store_->Usage()[1].used_bytes, before + 64 * kTestBlockBytes);
  ASSERT_TRUE(store_->RemoveCorpus("large").ok());
  EXPECT_LT(store_->Usage()[1].used_bytes, before + 4 * kTestBlockBytes);
  ExpectWhole(MakeCorpus(1, 2).chain);
}

TEST_F(BlockStoreTest, AShorterChainAndNewTokensReplaceTheTail) {
  const TestCorpus corpus = MakeCorpus(1, 6);
  CorpusRecord record = Ingest("a", corpus);
  TestCorpus longer = MakeCorpus(1, 6);
  std::copy_n(
      MakeCorpus(9, 8).tokens.begin() + 4 * kTestBlockTokens, 4 * kTestBlockTokens,
      (longer.tokens.resize(8 * kTestBlockTokens), longer.tokens.begin()) + 4 * kTestBlockTokens);
  longer.chain = BuildChain(longer.root, longer.tokens, kTestBlockTokens);
  ASSERT_EQ(longer.chain[3], corpus.chain[3]);
  ASSERT_NE(longer.chain[4], corpus.chain[4]);
  record.chain.resize(4);
  record.durable_tokens = 4 * kTestBlockTokens;
  auto replaced = store_->ReplaceTokens(record, longer.tokens);
  ASSERT_TRUE(replaced.ok()) << replaced.status().ToString();
  ASSERT_TRUE(PublishTo(*replaced, longer, 8).ok());
  Reopen();
  EXPECT_EQ(store_->GetCorpus("a")->chain, longer.chain);
  EXPECT_EQ(*store_->CorpusTokens("a"), longer.tokens);
  ExpectWhole(longer.chain);
  EXPECT_EQ(*store_->LongestPrefix(std::span(corpus.chain).subspan(4), {}), 0u);
}

TEST_F(BlockStoreTest, AFlippedByteIsFoundQuarantinedAndRepaired) {
  const TestCorpus corpus = MakeCorpus(1, 5);
  Ingest("a", corpus);
  ASSERT_TRUE(FlipByteOf(corpus.chain[3]));
  Reopen();
  FetchStats stats;
  const auto refs = store_->Fetch(corpus.chain, &stats);
  ASSERT_TRUE(refs.ok()) << refs.status().ToString();
  EXPECT_EQ(stats.damaged, std::vector<size_t>{3});
  EXPECT_FALSE((*refs)[3].valid());
  EXPECT_TRUE((*refs)[4].valid());
  EXPECT_EQ(*store_->LongestPrefix(corpus.chain, corpus.tokens), 3u);
  Reopen();  // the quarantine is durable
  EXPECT_EQ(*store_->LongestPrefix(corpus.chain, corpus.tokens), 3u);

  const auto payload = PayloadOf(corpus.chain[3]);
  const auto first = corpus.tokens.begin() + 3 * kTestBlockTokens;
  ASSERT_TRUE(
      store_->Repair({corpus.chain[3], {first, first + kTestBlockTokens}, payload, kTestSections})
          .ok());
  ExpectWhole(corpus.chain);
  Reopen();
  ExpectWhole(corpus.chain);
}

TEST_F(BlockStoreTest, VerifyReadsTheDiskEvenIfTheHostTierHasTheBlock) {
  const TestCorpus corpus = MakeCorpus(1, 4);
  Ingest("a", corpus);
  uint64_t calls = 0;
  auto report = store_->Verify("a", [&](uint64_t, uint64_t) { return ++calls > 0; });
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->blocks, 4u);
  EXPECT_EQ(calls, 4u);
  EXPECT_TRUE(report->damaged.empty());
  ASSERT_TRUE(FlipByteOf(corpus.chain[0]));
  Reopen();
  report = store_->Verify("a", [](uint64_t, uint64_t) { return true; });
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->damaged, std::vector<Digest>{corpus.chain[0]});
  EXPECT_EQ(store_->Verify("a", [](uint64_t, uint64_t) { return false; }).status().code(),
            StatusCode::kCancelled);
}

TEST_F(BlockStoreTest, AFullDiskRefusesTheRunAndLosesNothing) {
  const TestCorpus corpus = MakeCorpus(1, 6);
  auto record = Create("a", corpus);
  record = PublishTo(*record, corpus, 3);
  ASSERT_TRUE(record.ok());
  for (const char* const point : {"payload.write", "payload.written", "catalog.write"}) {
    ArmFault(point, FaultKind::kNoSpace, 0, 1);
    EXPECT_EQ(PublishTo(*record, corpus, 6).status().code(), StatusCode::kResourceExhausted)
        << point;
    ExpectWhole(record->chain);
    EXPECT_EQ(*store_->LongestPrefix(corpus.chain, corpus.tokens), 3u) << point;
  }
  DisarmFaults();
  ASSERT_TRUE(PublishTo(*record, corpus, 6).ok());  // space is back
  Reopen();
  ExpectWhole(corpus.chain);
}

TEST_F(BlockStoreTest, TheDiskCapIsHardAndSaysTheNumbers) {
  options_.disk_bytes = 40 * kTestBlockBytes;
  Reopen();
  Ingest("a", MakeCorpus(1, 8));
  const TestCorpus large = MakeCorpus(2, 64);
  const auto record = Create("b", large);
  ASSERT_TRUE(record.ok());
  const auto refused = PublishTo(*record, large, 64);
  EXPECT_EQ(refused.status().code(), StatusCode::kResourceExhausted);
  EXPECT_NE(refused.status().message().find("of 2.5 MiB"), std::string::npos)
      << refused.status().message();
  EXPECT_LE(store_->Usage()[1].used_bytes, options_.disk_bytes);
  ExpectWhole(MakeCorpus(1, 8).chain);
}

TEST_F(BlockStoreTest, AReadErrorIsReportedAndNotTakenForDamage) {
  const TestCorpus corpus = MakeCorpus(1, 3);
  Ingest("a", corpus);
  Reopen();
  ArmFault("payload.read", FaultKind::kIoError, 0, 1);
  FetchStats stats;
  EXPECT_EQ(store_->Fetch(corpus.chain, &stats).status().code(), StatusCode::kIoError);
  DisarmFaults();
  EXPECT_EQ(*store_->LongestPrefix(corpus.chain, corpus.tokens), 3u);
  ExpectWhole(corpus.chain);
}

TEST_F(BlockStoreTest, ASecondProcessIsRefusedWithTheOwnersPid) {
  const auto second = BlockStore::Open(options_);
  EXPECT_EQ(second.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_NE(second.status().message().find(std::to_string(getpid())), std::string::npos)
      << second.status().message();
}

TEST_F(BlockStoreTest, PinnedCorporaAreNotEvictedOnRequest) {
  const TestCorpus corpus = MakeCorpus(1, 4);
  CorpusRecord record = Ingest("a", corpus);
  record.pin = CorpusPin{static_cast<uint8_t>(TierKind::kHost), 0};
  record = *store_->UpdateCorpus(record);
  EXPECT_EQ(store_->Evict("a", TierKind::kHost, false).status().code(),
            StatusCode::kFailedPrecondition);
  record.pin.reset();
  ASSERT_TRUE(store_->UpdateCorpus(record).ok());
  EXPECT_EQ(store_->Evict("a", TierKind::kHost, true)->blocks, 4u);
  EXPECT_EQ(store_->Evict("a", TierKind::kHost, false)->bytes, 4 * kTestBlockBytes);
  EXPECT_EQ(store_->UsageOf(*store_->GetCorpus("a")).host_bytes, 0u);
}

TEST_F(BlockStoreTest, EvictionFromDiskKeepsTheTokens) {
  const TestCorpus corpus = MakeCorpus(1, 4);
  Ingest("a", corpus);
  EXPECT_EQ(store_->Evict("a", TierKind::kDisk, /*dry_run=*/true)->blocks, 4u);
  EXPECT_EQ(store_->GetCorpus("a")->chain.size(), 4u);
  ASSERT_TRUE(store_->Evict("a", TierKind::kDisk, false).ok());
  const auto record = store_->GetCorpus("a");
  EXPECT_TRUE(record->chain.empty());
  EXPECT_EQ(record->state, CorpusState::kEvicted);
  EXPECT_EQ(*store_->CorpusTokens("a"), corpus.tokens);
}

TEST_F(BlockStoreTest, JobsAreKept) {
  ASSERT_TRUE(store_->PutJob(7, "seven").ok());
  ASSERT_TRUE(store_->PutJob(8, "eight").ok());
  ASSERT_TRUE(store_->PutJob(7, "seven again").ok());
  ASSERT_TRUE(store_->RemoveJob(8).ok());
  Reopen();
  const std::vector<std::pair<uint64_t, std::string>> expected = {{7, "seven again"}};
  EXPECT_EQ(store_->ListJobs(), expected);
}

TEST_F(BlockStoreTest, ACatalogueThatIsNoFolderIsRefusedByName) {
  store_.reset();
  std::filesystem::remove_all(folder_ + "/catalog");
  std::ofstream(folder_ + "/catalog") << "not a folder";
  const auto refused = BlockStore::Open(options_);
  EXPECT_FALSE(refused.ok());
  EXPECT_NE(refused.status().message().find("/catalog"), std::string::npos);
}

TEST_F(BlockStoreTest, ManyThreadsAtOnce) {
  const TestCorpus hot = MakeCorpus(1, 6);
  Ingest("hot", hot);
  std::vector<std::jthread> threads;
  for (uint32_t t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      const std::string name = "own" + std::to_string(t);
      for (uint32_t round = 0; round < 5; ++round) {
        const TestCorpus own = MakeCorpus(100 + t, 4);
        auto record = Create(name, own);
        ASSERT_TRUE(record.ok());
        record = PublishTo(*record, own, 4);
        ASSERT_TRUE(record.ok()) << record.status().ToString();
        ExpectWhole(hot.chain);
        ExpectWhole(own.chain);
        ASSERT_TRUE(store_->Evict("hot", TierKind::kHost, false).ok());
        (void)store_->Usage();
        ASSERT_TRUE(store_->RemoveCorpus(name).ok());
      }
    });
  }
  threads.clear();
  ExpectWhole(hot.chain);
}

}  // namespace
}  // namespace corpusd
