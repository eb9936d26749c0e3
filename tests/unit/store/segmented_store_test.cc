// Segmented corpora in a store: documents shared wherever they stand, blocks that a chain names
// twice, verifying, evicting between segments, explaining what is not there.
#include <gtest/gtest.h>

#include <algorithm>

#include "store/catalog_families.h"
#include "store/miss_explain.h"
#include "store/rocks_database.h"
#include "tests/unit/store/segmented_corpus.h"

namespace corpusd {
namespace {

class SegmentedStoreTest : public SegmentedFixture {
 protected:
  Result<std::vector<BlockPresence>> Stored(const SegmentedCorpus& corpus) {
    return store_->StoredBlocks(corpus.chain(), corpus.digests(), corpus.tokens);
  }
  uint64_t SegmentFiles() const {
    uint64_t files = 0;
    for (const auto& entry : std::filesystem::directory_iterator(folder_ + "/segments")) {
      files += entry.is_regular_file() ? 1 : 0;
    }
    return files;
  }
};

// The same documents in another order beside new ones, as an update has them.
TEST_F(SegmentedStoreTest, StoredBlocksAreFoundWhereverTheyStand) {
  SegmentedCorpus old, updated;
  old.Add(MakeDocument(1, 70)).Add(MakeDocument(2, 20)).Add(MakeDocument(3, 9));
  updated.Add(MakeDocument(4, 30)).Add(MakeDocument(3, 9)).Add(MakeDocument(1, 70));
  Ingest("old", old);
  const auto stored = Stored(updated);
  ASSERT_TRUE(stored.ok()) << stored.status().ToString();
  const std::vector<Digest> digests = updated.digests();
  for (uint64_t i = 0; i < stored->size(); ++i) {
    const bool of_new = i >= 2 && updated.chain().SegmentOfBlock(i).source == 0;
    EXPECT_EQ((*stored)[i], of_new ? BlockPresence::kAbsent : BlockPresence::kStored) << i;
  }
  EXPECT_EQ(*store_->LongestPrefix(digests, updated.tokens), 0u) << "of exact corpora alone";
  // Half a chain can be asked for, too.
  const auto half =
      store_->StoredBlocks(updated.chain(), std::span(digests).first(3), updated.tokens);
  EXPECT_EQ(half->size(), 3u);
}

TEST_F(SegmentedStoreTest, AdoptedBlocksMakeAnUpdateThatIsWhole) {
  SegmentedCorpus old, updated;
  old.Add(MakeDocument(1, 70)).Add(MakeDocument(2, 20));
  updated.Add(MakeDocument(2, 20)).Add(MakeDocument(5, 12)).Add(MakeDocument(1, 70));
  Ingest("a", old);
  CorpusRecord record = updated.record;
  record.name = "a~update";
  record = *store_->CreateCorpus(record, updated.tokens);
  const auto digests = updated.digests();
  record = *store_->AdoptBlocks(record, std::span(digests).first(5));  // preamble, document 2
  record = *PublishTo(record, updated, 7);
  record = *store_->AdoptBlocks(record, std::span(digests).subspan(7));
  EXPECT_EQ(record.durable_tokens, updated.tokens.size());
  record.state = CorpusState::kReady;
  record.replaces = "a";
  record = *store_->UpdateCorpus(record);
  ASSERT_TRUE(store_->ReplaceCorpus("a~update", "a", "a~previous", 0).ok());
  ASSERT_TRUE(store_->RemoveCorpus("a~previous").ok());
  ExpectWhole(digests);
  ExpectSound();
  const auto report = store_->Verify("a", nullptr);
  ASSERT_TRUE(report.ok()) << report.status().ToString();
  EXPECT_EQ(report->blocks, digests.size());
  EXPECT_TRUE(report->damaged.empty() && report->missing.empty());
}

TEST_F(SegmentedStoreTest, ADigestWithOtherTokensIsCorruption) {
  SegmentedCorpus corpus;
  corpus.Add(MakeDocument(1, 20));
  Ingest("a", corpus);
  SegmentedCorpus other = corpus;
  other.tokens[13] ^= 1;
  const auto stored = store_->StoredBlocks(other.chain(), corpus.digests(), other.tokens);
  EXPECT_EQ(stored.status().code(), StatusCode::kCorruption);
}

// A document of one line over and over has windows that are all alike.
TEST_F(SegmentedStoreTest, ABlockThatAChainNamesTwiceIsCountedTwiceAndWrittenOnce) {
  options_.host_bytes = 64 * kTestBlockBytes;
  Reopen();
  SegmentedCorpus corpus;
  corpus.Add(std::vector<TokenId>(6 * kTestRule.window_tokens, 7)).Add(MakeDocument(1, 9));
  const auto digests = corpus.digests();
  auto unique = digests;
  std::sort(unique.begin(), unique.end());
  unique.erase(std::unique(unique.begin(), unique.end()), unique.end());
  ASSERT_LT(unique.size(), digests.size());
  const CorpusRecord record = Ingest("a", corpus);
  EXPECT_EQ(record.chain, digests);
  EXPECT_LT(SegmentDiskBytes(), (unique.size() + 2) * (kTestBlockBytes + 8192));
  ExpectSound();
  ExpectWhole(digests);
  // In pieces, adopted and cut.
  CorpusRecord twin = corpus.record;
  twin.name = "b";
  twin = *store_->CreateCorpus(twin, corpus.tokens);
  twin = *store_->AdoptBlocks(twin, std::span(digests).first(12));
  twin = *PublishTo(twin, corpus, digests.size());
  ExpectSound();
  twin.chain.resize(9);
  twin.durable_tokens = corpus.chain().TokensOfBlocks(9);
  ASSERT_TRUE(store_->UpdateCorpus(twin).ok());
  ExpectSound();
  Reopen();
  ASSERT_TRUE(store_->RemoveCorpus("a").ok());
  ExpectSound();
  ExpectWhole({digests.begin(), digests.begin() + 9});
  ASSERT_TRUE(store_->RemoveCorpus("b").ok());
  EXPECT_EQ(SegmentFiles(), 0u);
  ExpectSound();
}

TEST_F(SegmentedStoreTest, VerifyFindsDamageAndATokenThatIsNotTheCorpuss) {
  SegmentedCorpus corpus;
  corpus.Add(MakeDocument(1, 70)).Add(MakeDocument(2, 5));
  Ingest("a", corpus);
  const auto digests = corpus.digests();
  ASSERT_TRUE(FlipByteOf(digests[6]));
  Reopen();
  auto report = store_->Verify("a", nullptr);
  ASSERT_TRUE(report.ok()) << report.status().ToString();
  EXPECT_EQ(report->damaged, (std::vector<Digest>{digests[6]}));
  EXPECT_EQ((*Stored(corpus))[6], BlockPresence::kQuarantined);
  store_.reset();
  {
    auto catalog =
        RocksDatabase::Open(folder_ + "/catalog", RocksDatabase::Use::kCatalog, FamilyNames());
    RocksBatch batch;
    batch.Delete(kBlockTokens, AsText(digests[2]));
    ASSERT_TRUE((*catalog)->Write(batch, /*sync=*/true).ok());
  }
  Reopen();
  report = store_->Verify("a", nullptr);
  EXPECT_EQ(report->damaged, (std::vector<Digest>{digests[2], digests[6]}));
}

// Documents of one block each: nothing tells how many tokens a whole block would have.
TEST_F(SegmentedStoreTest, VerifyNeedsNoWholeBlock) {
  SegmentedCorpus corpus(3);
  for (uint32_t i = 0; i < 6; ++i) corpus.Add(MakeDocument(i, 2 + i % 3));
  Ingest("a", corpus);
  const auto report = store_->Verify("a", nullptr);
  ASSERT_TRUE(report.ok()) << report.status().ToString();
  EXPECT_TRUE(report->damaged.empty());
}

TEST_F(SegmentedStoreTest, EvictionCutsBetweenSegments) {
  options_.evict_run_blocks = 4;
  options_.block_tokens = kTestBlockTokens;
  Reopen();
  SegmentedCorpus corpus;
  // Segments begin at blocks 0, 2, 6, 10 and 11.
  corpus.Add(MakeDocument(1, 70)).Add(MakeDocument(2, 21));
  Ingest("a", corpus);
  const auto cut = [&](uint64_t blocks) {
    const auto plan = store_->EvictByPolicy(TierKind::kDisk, blocks * kTestBlockBytes, true);
    return plan->steps.empty() ? UINT64_MAX : plan->steps[0].keep_blocks;
  };
  EXPECT_EQ(cut(1), 11u);
  EXPECT_EQ(cut(4), 10u);
  EXPECT_EQ(cut(5), 6u);
  EXPECT_EQ(cut(8), 6u);
  EXPECT_EQ(cut(9), 2u);
  EXPECT_EQ(cut(1000), 0u);
  const auto done = store_->EvictByPolicy(TierKind::kDisk, 5 * kTestBlockBytes, false);
  ASSERT_TRUE(done.ok());
  const auto record = store_->GetCorpus("a");
  EXPECT_EQ(record->state, CorpusState::kEvicted);
  EXPECT_EQ(record->chain.size(), 6u);
  EXPECT_EQ(record->durable_tokens, corpus.chain().TokensOfBlocks(6));
  ExpectWhole(record->chain);
  ExpectSound();
  ASSERT_TRUE(PublishTo(*record, corpus, corpus.chain().blocks()).ok());
  ExpectSound();
}

TEST_F(SegmentedStoreTest, WithoutAKnownBlockItIsEvictedAsAWhole) {
  SegmentedCorpus corpus;
  corpus.Add(MakeDocument(1, 70));
  Ingest("a", corpus);
  const auto plan = store_->EvictByPolicy(TierKind::kDisk, 1, true);
  ASSERT_EQ(plan->steps.size(), 1u);
  EXPECT_EQ(plan->steps[0].keep_blocks, 0u);
}

// What was before an update owns a few documents in the middle: they can go, and only what stands
// behind them goes with them.
TEST_F(SegmentedStoreTest, EvictionReachesWhatACorpusOwnsBehindWhatItShares) {
  options_.block_tokens = kTestBlockTokens;
  Reopen();
  SegmentedCorpus old, updated;
  old.Add(MakeDocument(1, 16)).Add(MakeDocument(2, 40)).Add(MakeDocument(3, 16));
  updated.Add(MakeDocument(1, 16)).Add(MakeDocument(3, 16));
  CorpusRecord previous = Ingest("previous", old);
  Ingest("now", updated);
  previous = *store_->GetCorpus("previous");
  previous.priority = RetentionPriority::kLow;
  ASSERT_TRUE(store_->UpdateCorpus(previous).ok());
  const auto plan = store_->EvictByPolicy(TierKind::kDisk, 5 * kTestBlockBytes, false);
  ASSERT_EQ(plan->steps.size(), 1u);
  EXPECT_EQ(plan->steps[0].corpus, "previous");
  EXPECT_EQ(plan->steps[0].keep_blocks, 4u) << "preamble and document 1 free nothing";
  EXPECT_EQ(plan->bytes, 5 * kTestBlockBytes);
  ExpectWhole(updated.digests());
  EXPECT_EQ(store_->GetCorpus("now")->state, CorpusState::kReady);
  ExpectSound();
}

TEST_F(SegmentedStoreTest, WhatIsMissingIsExplainedBySegment) {
  SegmentedCorpus corpus;
  corpus.Add(MakeDocument(1, 24)).Add(MakeDocument(2, 24));
  CorpusRecord record = corpus.record;
  record.name = "a";
  record = *store_->CreateCorpus(record, corpus.tokens);
  ASSERT_TRUE(PublishTo(record, corpus, 5).ok());
  const CorpusChain chain = corpus.chain();
  MissQuestion question;
  question.identity = corpus.record.identity;
  question.tokens = corpus.tokens;
  question.block_tokens = kTestBlockTokens;
  question.chain = &chain;
  const auto report = ExplainMiss(*store_, question);
  ASSERT_TRUE(report.ok()) << report.status().ToString();
  EXPECT_EQ(report->blocks, 8u);
  EXPECT_EQ(report->present, 5u);
  ASSERT_EQ(report->runs.size(), 2u);
  EXPECT_EQ(report->runs[1].reason, MissReason::kNeverSeen);
  using P = BlockPresence;
  const std::vector<P> presence = {P::kStored, P::kStored, P::kStored, P::kAbsent,
                                   P::kAbsent, P::kAbsent, P::kStored, P::kStored};
  const auto runs = ClassifyBlocks(corpus.digests(), presence, {}, &chain);
  ASSERT_EQ(runs.size(), 4u);
  EXPECT_EQ(runs[1].reason, MissReason::kNeverSeen) << "the end of the first document";
  EXPECT_EQ(runs[1].blocks, 2u);
  EXPECT_EQ(runs[2].reason, MissReason::kHole) << "the beginning of the second";
}

TEST_F(SegmentedStoreTest, AnotherIdentityIsFoundByAPartialFirstBlock) {
  SegmentedCorpus corpus(3);
  corpus.Add(MakeDocument(1, 24));
  Ingest("a", corpus);
  const CorpusChain chain = corpus.chain();
  MissQuestion question;
  const std::vector<IdentityField> other = {{"schema", "1"}, {"mode", "else"}};
  question.identity = other;
  question.tokens = corpus.tokens;
  question.block_tokens = kTestBlockTokens;
  question.chain = &chain;
  const auto report = ExplainMiss(*store_, question);
  EXPECT_EQ(report->reason(), MissReason::kIdentity);
  EXPECT_EQ(report->other_corpus, "a");
}

}  // namespace
}  // namespace corpusd
