// A disk tier that is full gives up what is least worth keeping instead of refusing: tails before
// heads (kv-stores 3.5), never what is pinned or read (3.4, 3.16), under a hard cap (3.9), cheap
// before dear (3.8), and every loss says when and why (3.12).
#include "store/disk_eviction.h"

#include <gmock/gmock.h>

#include "store/miss_explain.h"
#include "tests/unit/store/store_fixture.h"

namespace corpusd {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr uint64_t kMiB = uint64_t{1} << 20;

// --- the plan, on plain records

class PlanTest : public ::testing::Test {
 protected:
  // Blocks are numbers; corpora that name one share it.
  void Add(const std::string& name, std::vector<uint8_t> blocks, double rank,
           RetentionPriority priority = RetentionPriority::kNormal) {
    CorpusRecord record;
    record.name = name;
    record.id = records_.size() + 1;
    record.priority = priority;
    for (const uint8_t block : blocks) {
      Digest digest;
      digest.bytes[0] = block;
      record.chain.push_back(digest);
      ++references_[block];
    }
    records_.push_back(record);
    ranks_.push_back(rank);
  }

  // "name keeps K" of each step.
  std::vector<std::string> Plan(uint64_t needed, uint32_t run_blocks = 1) {
    std::vector<EvictableCorpus> corpora;
    for (size_t i = 0; i < records_.size(); ++i) {
      if (pinned_.contains(records_[i].name)) continue;
      EvictableCorpus corpus;
      corpus.record = &records_[i];
      corpus.rank = ranks_[i];
      corpus.expired = expired_ == records_[i].name;
      corpus.keep_blocks = leased_.contains(records_[i].name) ? leased_[records_[i].name] : 0;
      corpora.push_back(corpus);
    }
    const ChainReader entries =
        [&](std::span<const Digest> digests) -> Result<std::vector<ChainEntry>> {
      std::vector<ChainEntry> found;
      for (const Digest& digest : digests) {
        found.emplace_back().references = references_[digest.bytes[0]];
        found.back().payload_bytes = 1;
      }
      return found;
    };
    const auto plan = PlanDiskEviction(corpora, entries, needed, {run_blocks, 0});
    EXPECT_TRUE(plan.ok());
    bytes_ = plan->bytes;
    std::vector<std::string> steps;
    for (const EvictStep& step : plan->steps) {
      steps.push_back(step.corpus + " keeps " + std::to_string(step.keep_blocks));
    }
    return steps;
  }

  std::vector<CorpusRecord> records_;
  std::vector<double> ranks_;
  std::map<uint8_t, uint32_t> references_;
  std::set<std::string> pinned_;
  std::map<std::string, uint64_t> leased_;
  std::string expired_;
  uint64_t bytes_ = 0;
};

TEST_F(PlanTest, TheColdestCorpusLosesItsTailAndKeepsItsHead) {
  Add("hot", {1, 2, 3, 4}, 2);
  Add("cold", {5, 6, 7, 8}, 1);
  EXPECT_THAT(Plan(2), ElementsAre("cold keeps 2"));
  EXPECT_THAT(Plan(5), ElementsAre("cold keeps 0", "hot keeps 3"));
  EXPECT_EQ(bytes_, 5u);
}

TEST_F(PlanTest, RunsAreCutWhole) {
  Add("a", {1, 2, 3, 4, 5, 6}, 1);
  EXPECT_THAT(Plan(1, 4), ElementsAre("a keeps 4"));
  EXPECT_THAT(Plan(3, 4), ElementsAre("a keeps 0"));
}

TEST_F(PlanTest, WhatExpiredGoesFirstThenByPriorityThenByHeat) {
  Add("dear", {1}, 0, RetentionPriority::kHigh);
  Add("plain", {2}, 1);
  Add("cheap", {3}, 9, RetentionPriority::kLow);
  Add("over", {4}, 9, RetentionPriority::kHigh);
  expired_ = "over";
  EXPECT_THAT(Plan(4),
              ElementsAre("over keeps 0", "cheap keeps 0", "plain keeps 0", "dear keeps 0"));
}

TEST_F(PlanTest, ASharedBeginningStaysWhileSomebodyKeepsIt) {
  Add("cold", {1, 2, 3}, 1);
  Add("hot", {1, 2, 4}, 2);
  EXPECT_THAT(Plan(1), ElementsAre("cold keeps 2"));
  EXPECT_THAT(Plan(2), ElementsAre("cold keeps 2", "hot keeps 2"));
  EXPECT_THAT(Plan(4), ElementsAre("cold keeps 0", "hot keeps 0"));
  EXPECT_EQ(bytes_, 4u);
}

TEST_F(PlanTest, NobodyLosesBlocksThatAPinKeepsAnyway) {
  Add("cold", {1, 2, 3}, 1);
  Add("pinned", {1, 2, 4}, 2);
  pinned_ = {"pinned"};
  EXPECT_THAT(Plan(100), ElementsAre("cold keeps 2"));
  EXPECT_EQ(bytes_, 1u);
}

TEST_F(PlanTest, NothingBeforeALeasedBlockGoes) {
  Add("read", {1, 2, 3, 4, 5}, 1);
  leased_["read"] = 3;
  EXPECT_THAT(Plan(100), ElementsAre("read keeps 3"));
  EXPECT_THAT(Plan(100, 4), ElementsAre("read keeps 4"));
}

// --- the store

class DiskEvictionTest : public StoreFixture {
 protected:
  void SetUp() override {
    options_.evict_disk = true;
    options_.evict_run_blocks = 4;
    options_.disk_bytes = 24 * kMiB;
    StoreFixture::SetUp();
  }

  // So many corpora of one MiB: "c0", "c1", ... of seeds 100, 101, ...
  void Fill(uint32_t first, uint32_t end) {
    for (uint32_t i = first; i < end; ++i) {
      Ingest("c" + std::to_string(i), MakeCorpus(100 + i, 16));
      if (HasFailure()) return;
    }
  }
  uint64_t DiskBytes() const { return store_->Usage()[1].used_bytes; }
  size_t BlocksOf(const std::string& name) { return store_->GetCorpus(name)->chain.size(); }
  void Pin(const std::string& name) {
    CorpusRecord record = *store_->GetCorpus(name);
    record.pin = CorpusPin{static_cast<uint8_t>(TierKind::kDisk), 0};
    const auto pinned = store_->UpdateCorpus(record);
    ASSERT_TRUE(pinned.ok()) << pinned.status().ToString();
  }
};

TEST_F(DiskEvictionTest, AnIngestThatMeetsTheCapEvictsTheColdestTailsInsteadOfFailing) {
  Fill(0, 60);
  EXPECT_LE(DiskBytes(), options_.disk_bytes);
  EXPECT_EQ(store_->ListCorpora().size(), 60u) << "evicted corpora keep their names";
  const CorpusRecord oldest = *store_->GetCorpus("c0");
  EXPECT_EQ(oldest.state, CorpusState::kEvicted);
  EXPECT_TRUE(oldest.chain.empty());
  EXPECT_EQ(*store_->CorpusTokens("c0"), MakeCorpus(100, 16).tokens);
  EXPECT_EQ(store_->GetCorpus("c59")->state, CorpusState::kReady);
  ExpectWhole(MakeCorpus(159, 16).chain);
  const EvictionCounts counts = store_->evictions();
  EXPECT_GT(counts.blocks, 16u * 30);
  EXPECT_GE(counts.corpora, 30u);
  EXPECT_EQ(counts.refusals, 0u);
  EXPECT_THAT(counts.last_text, HasSubstr("for corpus 'c"));
}

TEST_F(DiskEvictionTest, AMissSaysThatItWasEvictedWhenAndForWhom) {
  Fill(0, 40);
  const TestCorpus gone = MakeCorpus(100, 16);
  const std::vector<IdentityField> identity = {{"schema", "1"}};
  const auto report = ExplainMiss(*store_, {identity, gone.tokens, kTestBlockTokens, ""});
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->present, 0u);
  EXPECT_EQ(report->reason(), MissReason::kEvicted);
  EXPECT_GT(report->runs.front().when_ms, 0);
  EXPECT_THAT(report->runs.front().detail,
              AllOf(HasSubstr("'c0' (room)"), HasSubstr("for corpus 'c"),
                    HasSubstr("priority normal, never asked")));
}

TEST_F(DiskEvictionTest, AnEvictedCorpusIsBuiltAgainFromItsTokens) {
  Fill(0, 40);
  const TestCorpus corpus = MakeCorpus(100, 16);
  const auto built = PublishTo(*store_->GetCorpus("c0"), corpus, 16);
  ASSERT_TRUE(built.ok()) << built.status().ToString();
  ExpectWhole(corpus.chain);
  EXPECT_LE(DiskBytes(), options_.disk_bytes);
}

TEST_F(DiskEvictionTest, PinnedCorporaStayWhileOthersGo) {
  Fill(0, 4);
  Pin("c0");
  Pin("c2");
  Fill(4, 50);
  EXPECT_EQ(BlocksOf("c0"), 16u);
  EXPECT_EQ(BlocksOf("c1"), 0u);
  EXPECT_EQ(BlocksOf("c2"), 16u);
}

TEST_F(DiskEvictionTest, BlocksThatAReaderHoldsStayUntilItLetsThemGo) {
  options_.host_bytes = 64 * kTestBlockBytes;
  Reopen();
  Fill(0, 2);
  const TestCorpus read = MakeCorpus(100, 16);
  {
    const auto held = store_->Prefetch(std::span(read.chain).first(6), {});
    ASSERT_TRUE(held.ok());
    Fill(2, 40);
    EXPECT_EQ(BlocksOf("c0"), 8u) << "up to the run of the last block held";
    EXPECT_EQ(BlocksOf("c1"), 0u);
  }
  Fill(40, 60);
  EXPECT_EQ(BlocksOf("c0"), 0u);
}

TEST_F(DiskEvictionTest, WhatIsAskedOftenOutlivesWhatIsNot) {
  Fill(0, 3);
  for (uint32_t i = 3; i < 60; ++i) {
    ASSERT_TRUE(store_->NoteUse("c1").ok());
    Fill(i, i + 1);
  }
  EXPECT_EQ(BlocksOf("c1"), 16u);
  EXPECT_EQ(BlocksOf("c0"), 0u);
  EXPECT_EQ(BlocksOf("c2"), 0u);
}

TEST_F(DiskEvictionTest, HeatSurvivesARestart) {
  Fill(0, 3);
  ASSERT_TRUE(store_->NoteUse("c0").ok());
  ASSERT_TRUE(store_->NoteUse("c0").ok());
  const auto before = store_->EvictByPolicy(TierKind::kDisk, UINT64_MAX, /*dry_run=*/true);
  Reopen();
  const auto after = store_->EvictByPolicy(TierKind::kDisk, UINT64_MAX, /*dry_run=*/true);
  ASSERT_EQ(before->steps.size(), 3u);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(before->steps[i].corpus, after->steps[i].corpus);
  EXPECT_EQ(after->steps.back().corpus, "c0");
}

TEST_F(DiskEvictionTest, WhatIsCheapToComputeGoesBeforeWhatIsDear) {
  for (const auto& [name, seed, seconds] :
       {std::tuple("dear", 1U, 90.0), std::tuple("cheap", 2U, 3.0)}) {
    const TestCorpus corpus = MakeCorpus(seed, 8);
    CorpusRecord record = *Create(name, corpus);
    record.prefill_seconds = seconds;
    record = *store_->UpdateCorpus(record);
    record = *PublishTo(record, corpus, 8);
    record.state = CorpusState::kReady;
    ASSERT_TRUE(store_->UpdateCorpus(record).ok());
  }
  const auto plan = store_->EvictByPolicy(TierKind::kDisk, UINT64_MAX, /*dry_run=*/true);
  ASSERT_EQ(plan->steps.size(), 2u);
  EXPECT_EQ(plan->steps[0].corpus, "cheap");
  EXPECT_THAT(plan->steps[0].why, HasSubstr("3 s to compute"));
}

TEST_F(DiskEvictionTest, OffMeansThatAFullTierRefuses) {
  options_.evict_disk = false;
  Reopen();
  Status status;
  for (uint32_t i = 0; i < 60 && status.ok(); ++i) {
    const TestCorpus corpus = MakeCorpus(100 + i, 16);
    const auto record = Create("c" + std::to_string(i), corpus);
    status = record.ok() ? PublishTo(*record, corpus, 16).status() : record.status();
  }
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(store_->evictions().passes, 0u);
}

TEST_F(DiskEvictionTest, ACorpusThatCanNeverFitTakesNobodysPlace) {
  Fill(0, 20);
  const auto before = store_->evictions();
  const TestCorpus huge = MakeCorpus(1, 800);  // 50 MiB
  CorpusRecord record = *Create("huge", huge);
  record.whole_blocks = 800;
  record = *store_->UpdateCorpus(record);
  Status status;
  for (size_t end = 16; end <= 800 && status.ok(); end += 16) {
    auto published = PublishTo(record, huge, end);
    status = published.status();
    if (published.ok()) record = *published;
  }
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(status.message(), AllOf(HasSubstr("may be evicted"), HasSubstr("--disk-bytes")));
  EXPECT_EQ(store_->evictions().blocks, before.blocks);
  for (uint32_t i = 0; i < 20; ++i) EXPECT_EQ(BlocksOf("c" + std::to_string(i)), 16u) << i;
}

TEST_F(DiskEvictionTest, WhenPinsHoldEverythingTheRefusalSaysSo) {
  options_.pins_total_bytes = options_.disk_bytes;
  Reopen();
  Status status;
  for (uint32_t i = 0; i < 60 && status.ok(); ++i) {
    const TestCorpus corpus = MakeCorpus(100 + i, 16);
    const auto record = Create("c" + std::to_string(i), corpus);
    status = record.ok() ? PublishTo(*record, corpus, 16).status() : record.status();
    if (status.ok()) Pin("c" + std::to_string(i));
  }
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(status.message(), HasSubstr("are pinned"));
  EXPECT_GT(store_->evictions().refusals, 0u);
  EXPECT_LE(DiskBytes(), options_.disk_bytes);
}

TEST_F(DiskEvictionTest, ALoweredCapIsReachedInTheBackground) {
  Fill(0, 18);
  options_.disk_bytes = 16 * kMiB;
  Reopen();
  ASSERT_GT(DiskBytes(), options_.disk_bytes / 100 * options_.disk_high_percent);
  ASSERT_TRUE(store_->TrimDisk().ok());
  EXPECT_LE(DiskBytes(), options_.disk_bytes / 100 * (options_.disk_low_percent + 2));
  EXPECT_EQ(BlocksOf("c0"), 0u);
  EXPECT_EQ(BlocksOf("c17"), 16u);
  const auto passes = store_->evictions().passes;
  ASSERT_TRUE(store_->TrimDisk().ok());
  EXPECT_EQ(store_->evictions().passes, passes) << "below the high watermark nothing goes";
}

// Room for one tenant is made of its own corpora and of those that are no tenant's.
TEST_F(DiskEvictionTest, NoTenantEvictsAnothers) {
  const auto fill = [&](const std::string& tenant, uint32_t first, uint32_t end) {
    for (uint32_t i = first; i < end && !HasFailure(); ++i) {
      Ingest(tenant + "c" + std::to_string(i), MakeCorpus(100 + i, 16));
    }
  };
  fill("acme/", 0, 8);
  fill("", 10, 16);
  fill("globex/", 20, 40);  // more than there is room for
  for (uint32_t i = 0; i < 8; ++i) EXPECT_EQ(BlocksOf("acme/c" + std::to_string(i)), 16u) << i;
  for (uint32_t i = 10; i < 16; ++i) EXPECT_EQ(BlocksOf("c" + std::to_string(i)), 0u) << i;
  EXPECT_EQ(BlocksOf("globex/c20"), 0u) << "its own went as well";
  EXPECT_EQ(BlocksOf("globex/c39"), 16u);
  // Who is no tenant's takes nothing from them.
  const TestCorpus large = MakeCorpus(300, 16 * 20);
  const auto record = Create("large", large);
  ASSERT_TRUE(record.ok());
  EXPECT_EQ(PublishTo(*record, large, 16 * 20).status().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(BlocksOf("acme/c0"), 16u);
  EXPECT_EQ(BlocksOf("globex/c39"), 16u);
  for (const EvictionNote& note : store_->EvictionNotes()) {
    EXPECT_THAT(note.detail, ::testing::Not(HasSubstr("acme")));
    if (note.corpus != "c10") continue;
    EXPECT_THAT(note.detail, HasSubstr("for a tenant"));
  }
  // An operator says what goes.
  ASSERT_TRUE(store_->EvictByPolicy(TierKind::kDisk, UINT64_MAX, false).ok());
  EXPECT_EQ(BlocksOf("acme/c0"), 0u);
}

TEST_F(DiskEvictionTest, TrimmingForNobodyTakesWhatMayGoAndComplainsOfNothing) {
  options_.pins_total_bytes = options_.disk_bytes;
  Reopen();
  Fill(0, 18);
  for (uint32_t i = 1; i < 18; ++i) Pin("c" + std::to_string(i));
  options_.disk_bytes = 16 * kMiB;
  Reopen();
  ASSERT_TRUE(store_->TrimDisk().ok());
  EXPECT_EQ(BlocksOf("c0"), 0u);
  EXPECT_EQ(BlocksOf("c1"), 16u);
  EXPECT_EQ(store_->evictions().refusals, 0u);
}

TEST_F(DiskEvictionTest, ADryRunSaysWhatTheEvictionThenDoes) {
  Fill(0, 6);
  for (const uint64_t bytes : {3 * kMiB / 2, uint64_t{UINT64_MAX}}) {
    const auto planned = store_->EvictByPolicy(TierKind::kDisk, bytes, /*dry_run=*/true);
    const auto unchanged = store_->EvictByPolicy(TierKind::kDisk, bytes, /*dry_run=*/true);
    const auto done = store_->EvictByPolicy(TierKind::kDisk, bytes, /*dry_run=*/false);
    ASSERT_TRUE(planned.ok() && unchanged.ok() && done.ok());
    EXPECT_EQ(planned->bytes, done->bytes);
    ASSERT_EQ(planned->steps.size(), done->steps.size());
    ASSERT_EQ(planned->steps.size(), unchanged->steps.size());
    for (size_t i = 0; i < done->steps.size(); ++i) {
      EXPECT_EQ(planned->steps[i].corpus, done->steps[i].corpus);
      EXPECT_EQ(planned->steps[i].bytes, done->steps[i].bytes);
      EXPECT_EQ(BlocksOf(done->steps[i].corpus), done->steps[i].keep_blocks);
    }
  }
  for (uint32_t i = 0; i < 6; ++i) EXPECT_EQ(BlocksOf("c" + std::to_string(i)), 0u);
}

TEST_F(DiskEvictionTest, MemoryIsFreedInTheSameOrder) {
  options_.host_bytes = 100 * kTestBlockBytes;
  Reopen();
  Fill(0, 3);
  ASSERT_TRUE(store_->NoteUse("c0").ok());
  const auto done = store_->EvictByPolicy(TierKind::kHost, kMiB, /*dry_run=*/false);
  ASSERT_TRUE(done.ok());
  ASSERT_EQ(done->steps.size(), 1u);
  EXPECT_EQ(done->steps[0].corpus, "c1");
  EXPECT_EQ(store_->UsageOf(*store_->GetCorpus("c1")).host_bytes, 0u);
  EXPECT_EQ(BlocksOf("c1"), 16u) << "the disk keeps them";
  EXPECT_EQ(store_->EvictByPolicy(TierKind::kDevice, 1, false).status().code(),
            StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace corpusd
