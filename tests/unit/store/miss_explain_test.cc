// Every answer that explain-miss can give (anthropics/claude-code#90953, omlx#1784 ask for it).
#include "store/miss_explain.h"

#include <gmock/gmock.h>

#include "store/base/clock.h"
#include "store/miss_explain_tenant.h"
#include "tests/unit/store/bundle_fixture.h"

namespace corpusd {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class MissTest : public BundleFixture {
 protected:
  MissReport Explain(const std::vector<IdentityField>& identity, std::span<const TokenId> tokens,
                     const std::string& text_sha256 = "") {
    auto report = ExplainMiss(*store_, {identity, tokens, kTestBlockTokens, text_sha256});
    EXPECT_TRUE(report.ok()) << report.status().ToString();
    return report.ok() ? *report : MissReport{};
  }
};

TEST_F(MissTest, WhatIsHereDoesNotMiss) {
  const TestCorpus corpus = IngestFor("a", "t", 4);
  const MissReport report = Explain(IdentityOfTenant("t"), corpus.tokens);
  EXPECT_EQ(report.reason(), MissReason::kNone);
  EXPECT_EQ(report.present, 4u);
  ASSERT_EQ(report.runs.size(), 1u);
  EXPECT_EQ(report.runs[0].blocks, 4u);
}

TEST_F(MissTest, WhatNobodyIngestedWasNeverSeen) {
  IngestFor("a", "t", 4);
  const TestCorpus other = MakeCorpus(99, 3);
  const MissReport report = Explain(IdentityOfTenant("t"), other.tokens);
  EXPECT_EQ(report.reason(), MissReason::kNeverSeen);
  EXPECT_TRUE(report.other_corpus.empty());
}

TEST_F(MissTest, ATextThatGoesOnDifferentlyMissesFromThere) {
  const TestCorpus corpus = IngestFor("a", "t", 4);
  std::vector<TokenId> tokens = corpus.tokens;
  tokens[2 * kTestBlockTokens] ^= 1;
  const MissReport report = Explain(IdentityOfTenant("t"), tokens);
  EXPECT_EQ(report.present, 2u);
  ASSERT_EQ(report.runs.size(), 2u);
  EXPECT_EQ(report.runs[1].first_block, 2u);
  EXPECT_EQ(report.runs[1].reason, MissReason::kNeverSeen);
}

TEST_F(MissTest, AnotherIdentityIsNamedByEachFieldThatDiffers) {
  const TestCorpus corpus = IngestFor("filings", "t", 3);
  Reopen();
  for (const char* const field : {"weights", "tokenizer", "kv_format", "mode", "tenant"}) {
    std::vector<IdentityField> asked = IdentityOfTenant("t");
    for (IdentityField& f : asked) {
      if (f.name == field) f.value = "other";
    }
    const MissReport report = Explain(asked, corpus.tokens);
    EXPECT_EQ(report.reason(), MissReason::kIdentity) << field;
    EXPECT_EQ(report.other_corpus, "filings");
    ASSERT_EQ(report.differences.size(), 1u) << field;
    EXPECT_EQ(report.differences[0].field, field);
    EXPECT_EQ(report.differences[0].asked, "other");
    EXPECT_NE(report.differences[0].stored, "other");
  }
}

TEST_F(MissTest, TheSameTextUnderAnotherPreambleOrPlaceIsFoundByItsHash) {
  const TestCorpus corpus = IngestFor("filings", "t", 3);
  std::vector<TokenId> tokens = corpus.tokens;
  tokens.insert(tokens.begin(), 42);  // a longer preamble moves every block
  const MissReport report = Explain(IdentityOfTenant("t"), tokens, "ff");
  EXPECT_EQ(report.reason(), MissReason::kIdentity);
  EXPECT_EQ(report.other_corpus, "filings");
  ASSERT_EQ(report.differences.size(), 1u);
  EXPECT_EQ(report.differences[0].field, "preamble");
  EXPECT_EQ(Explain(IdentityOfTenant("t"), tokens, "ee").reason(), MissReason::kNeverSeen);
}

TEST_F(MissTest, ATenantIsNotToldOfAnothersText) {
  const TestCorpus corpus = IngestFor("acme/filings", "t", 3);
  std::vector<TokenId> moved = corpus.tokens;
  moved.insert(moved.begin(), 42);
  const auto identity = IdentityOfTenant("another salt");
  for (const bool removed : {false, true}) {
    if (removed) {
      ASSERT_TRUE(store_->RemoveCorpus("acme/filings").ok());
    }
    for (const std::string tenant : {"globex", ""}) {
      for (const auto& tokens : {corpus.tokens, moved}) {
        const auto report =
            ExplainMissTo(tenant, *store_, {identity, tokens, kTestBlockTokens, "ff"});
        ASSERT_TRUE(report.ok());
        EXPECT_EQ(report->reason(), MissReason::kNeverSeen);
        EXPECT_EQ(report->other_corpus, "");
        EXPECT_TRUE(report->differences.empty());
      }
    }
    const auto own =
        ExplainMissTo("acme", *store_, {identity, corpus.tokens, kTestBlockTokens, "ff"});
    EXPECT_EQ(own->other_corpus, removed ? "" : "acme/filings");
  }
}

TEST_F(MissTest, WhatWasEvictedSaysWhenAndWhy) {
  const TestCorpus corpus = IngestFor("a", "t", 4);
  const int64_t before_ms = WallTimeMs();
  ASSERT_TRUE(store_->Evict("a", TierKind::kDisk, false).ok());
  Reopen();
  const MissReport report = Explain(IdentityOfTenant("t"), corpus.tokens);
  EXPECT_EQ(report.reason(), MissReason::kEvicted);
  EXPECT_GE(report.runs[0].when_ms, before_ms);
  EXPECT_THAT(report.runs[0].detail, HasSubstr("corpus 'a' (asked)"));
}

TEST_F(MissTest, WhatWasRemovedSaysSoAndItsIdentityIsKept) {
  const TestCorpus corpus = IngestFor("a", "t", 2);
  ASSERT_TRUE(store_->RemoveCorpus("a").ok());
  Reopen();
  EXPECT_EQ(Explain(IdentityOfTenant("t"), corpus.tokens).reason(), MissReason::kRemoved);
  ASSERT_EQ(store_->Roots().size(), 1u);
  EXPECT_EQ(store_->Roots()[0].corpus, "a");
  EXPECT_EQ(store_->Roots()[0].identity, IdentityOfTenant("t"));
}

TEST_F(MissTest, ADamagedBlockIsCorruptUntilItIsRepaired) {
  const TestCorpus corpus = IngestFor("a", "t", 3);
  ASSERT_TRUE(FlipByteOf(corpus.chain[1]));
  Reopen();
  FetchStats stats;
  ASSERT_TRUE(store_->Fetch(corpus.chain, &stats).ok());
  ASSERT_EQ(stats.damaged.size(), 1u);
  const MissReport report = Explain(IdentityOfTenant("t"), corpus.tokens);
  EXPECT_EQ(report.reason(), MissReason::kCorrupt);
  EXPECT_EQ(report.present, 2u);
  EXPECT_EQ(report.runs[1].first_block, 1u);
  EXPECT_EQ(report.runs[1].blocks, 1u);
}

TEST(ClassifyBlocks, AHoleHasBlocksBehindIt) {
  const TestCorpus corpus = MakeCorpus(1, 5);
  using enum BlockPresence;
  const std::vector<BlockPresence> presence = {kStored, kAbsent, kAbsent, kStored, kAbsent};
  const auto runs = ClassifyBlocks(corpus.chain, presence, {});
  std::vector<MissReason> reasons;
  for (const MissRun& run : runs) reasons.push_back(run.reason);
  EXPECT_THAT(reasons, ElementsAre(MissReason::kNone, MissReason::kHole, MissReason::kNone,
                                   MissReason::kNeverSeen));
  EXPECT_EQ(runs[1].blocks, 2u);
}

TEST(ClassifyBlocks, OfTwoNotesOnABlockTheLaterCounts) {
  const TestCorpus corpus = MakeCorpus(1, 4);
  EvictionNote early;
  early.blocks = 4;
  early.first_digest = corpus.chain[0];
  early.when_ms = 1;
  EvictionNote late = early;
  late.first_block = 2;
  late.blocks = 2;
  late.first_digest = corpus.chain[2];
  late.when_ms = 2;
  late.reason = EvictionReason::kExpired;
  const std::vector<BlockPresence> presence(4, BlockPresence::kAbsent);
  for (const auto& notes : {std::vector{early, late}, std::vector{late, early}}) {
    const auto runs = ClassifyBlocks(corpus.chain, presence, notes);
    ASSERT_EQ(runs.size(), 2u);
    EXPECT_EQ(runs[0].reason, MissReason::kEvicted);
    EXPECT_EQ(runs[1].reason, MissReason::kExpired);
    EXPECT_EQ(runs[1].first_block, 2u);
  }
  // A note on another chain says nothing.
  early.first_digest = MakeCorpus(2, 1).chain[0];
  EXPECT_EQ(ClassifyBlocks(corpus.chain, presence, std::vector{early})[0].reason,
            MissReason::kNeverSeen);
}

TEST(MissCounters, CountByReason) {
  MissCounters counters;
  counters.Count(MissReason::kEvicted, 7);
  counters.Count(MissReason::kEvicted, 1);
  const auto counts = counters.Read();
  EXPECT_EQ(counts.lookups[static_cast<size_t>(MissReason::kEvicted)], 2u);
  EXPECT_EQ(counts.blocks[static_cast<size_t>(MissReason::kEvicted)], 8u);
  EXPECT_EQ(counts.lookups[static_cast<size_t>(MissReason::kNeverSeen)], 0u);
}

}  // namespace
}  // namespace corpusd
