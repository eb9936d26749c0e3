// Scrubs: what they find, where they go on, when they begin.
#include <gmock/gmock.h>

#include "daemon/jobs/maintenance.h"
#include "daemon/jobs/scrub_pass.h"
#include "tests/support/corrupt_block.h"
#include "tests/unit/daemon/integrity_fixture.h"

namespace corpusd {
namespace {

using ::testing::HasSubstr;

class ScrubTest : public IntegrityFixture {
 protected:
  // Flips a byte of the block's payload on disk.
  void Damage(const std::string& corpus, uint64_t block) {
    owned_.reset();
    const Status damaged = CorruptBlock(folder_ + "/data", corpus, block, 5);
    ASSERT_TRUE(damaged.ok()) << damaged.ToString();
    OpenStore();
  }
  Status Scrub(
      ScrubState* state, const std::function<void()>& on_progress = [] {},
      const std::stop_token& stop = {}) {
    FakeEngine engine(*store_, controls_);
    return ScrubPass(*store_, engine, nullptr).Run(state, on_progress, stop);
  }
};

TEST_F(ScrubTest, EveryBlockIsReadOnceSharedOnesToo) {
  Put("a", 1, 5, /*shared=*/3);
  Put("b", 2, 6, /*shared=*/3);
  ScrubState state;
  ASSERT_TRUE(Scrub(&state).ok());
  EXPECT_EQ(state.blocks, 8u) << "three of the eleven are the same";
  EXPECT_EQ(state.total_blocks, 8u);
  EXPECT_EQ(state.bytes, 8 * kTestBlockBytes);
  EXPECT_EQ(state.damaged + state.missing + state.contradictions, 0u);
  EXPECT_TRUE(state.findings.empty());
}

TEST(OwnBlocks, PrefixesAndDocumentsThatAreSharedAreReadOnce) {
  std::vector<Digest> d(9);
  for (size_t i = 0; i < d.size(); ++i) d[i].bytes[0] = static_cast<uint8_t>(i);
  std::vector<CorpusRecord> records(5);
  records[0].chain = std::vector<Digest>{d[0], d[1], d[2]};
  records[1].chain = std::vector<Digest>{d[0], d[1], d[3]};
  for (size_t i = 2; i < records.size(); ++i) records[i].segments = {128, 0};
  records[2].chain = std::vector<Digest>{d[4], d[5], d[5], d[6]};
  records[3].chain = std::vector<Digest>{d[4], d[7], d[6], d[5], d[8]};
  const auto own = OwnBlocks(records);
  EXPECT_EQ(own[0], (std::vector<size_t>{0, 1, 2}));
  EXPECT_EQ(own[1], (std::vector<size_t>{2}));
  EXPECT_EQ(own[2], (std::vector<size_t>{0, 1, 3}));
  EXPECT_EQ(own[3], (std::vector<size_t>{1, 4}));
  EXPECT_TRUE(own[4].empty());
}

TEST_F(ScrubTest, DamageIsFoundQuarantinedAndGivenToTheEngine) {
  const TestCorpus corpus = Put("a", 1, 4);
  Put("b", 2, 4);
  Damage("a", 2);
  ScrubState state;
  ASSERT_TRUE(Scrub(&state).ok());
  EXPECT_EQ(state.blocks, 8u);
  EXPECT_EQ(state.damaged, 1u);
  EXPECT_EQ(state.repaired, 1u) << "the fake engine says that it repaired one";
  ASSERT_EQ(state.findings.size(), 1u);
  EXPECT_THAT(state.findings[0], HasSubstr("corpus 'a' block 2"));
  const auto presence = store_->Presence({&corpus.chain[2], 1});
  EXPECT_EQ(presence->front(), BlockPresence::kQuarantined);
}

TEST_F(ScrubTest, PartsAreReadAsBlocksAre) {
  const std::vector<CorpusPart> parts = {{kTestPartKind, kTestPartBytes, kTestPartSections, 3, {}}};
  const TestCorpus corpus = Put("a", 1, 5, 0, kWeights, parts);
  const Digest part = PartDigest(corpus.chain[4], kTestPartKind);
  owned_.reset();
  ASSERT_TRUE(CorruptDigest(folder_ + "/data", part, 5).ok());
  OpenStore();
  ScrubState state;
  ASSERT_TRUE(Scrub(&state).ok());
  EXPECT_EQ(state.blocks, 7u) << "of the last two the part is kept";
  EXPECT_EQ(state.total_blocks, 7u);
  EXPECT_EQ(state.damaged, 1u);
  EXPECT_EQ(state.repaired, 1u);
  ASSERT_EQ(state.findings.size(), 1u);
  EXPECT_THAT(state.findings[0], HasSubstr("corpus 'a' block 4, part c32"));
}

TEST_F(ScrubTest, StoppedAnywhereItGoesOnAndMissesNothing) {
  Put("a", 1, 3);
  Put("b", 2, 4);
  Put("c", 3, 2);
  Damage("b", 1);
  for (uint64_t stop_after = 1; stop_after < 9; ++stop_after) {
    ScrubState state;
    std::stop_source stop;
    const Status stopped = Scrub(
        &state,
        [&] {
          if (state.blocks == stop_after) stop.request_stop();
        },
        stop.get_token());
    EXPECT_EQ(stopped.code(), StatusCode::kCancelled);
    EXPECT_EQ(state.blocks, stop_after);
    // As after a restart: through the job's record.
    JobRecord job;
    job.id = 1;
    job.kind = "scrub";
    job.scrub = state;
    const auto stored = DecodeJob(EncodeJob(job));
    ASSERT_TRUE(stored.ok()) << stored.status().ToString();
    ScrubState again = *stored->scrub;
    ASSERT_TRUE(Scrub(&again).ok());
    EXPECT_EQ(again.blocks, 9u) << stop_after;
    EXPECT_EQ(again.damaged, 1u) << stop_after;
    EXPECT_EQ(again.repaired, 1u) << stop_after;
  }
}

TEST_F(ScrubTest, ACatalogueThatContradictsItselfIsFound) {
  CorpusRecord record;
  record.name = "odd";
  record.identity = {{"weights", "a"}};
  record.root = ChainRoot(std::vector<IdentityField>{{"weights", "b"}});
  ASSERT_TRUE(store_->CreateCorpus(record, std::vector<TokenId>{1, 2}).ok());
  ScrubState state;
  ASSERT_TRUE(Scrub(&state).ok());
  EXPECT_EQ(state.contradictions, 1u);
  EXPECT_THAT(state.findings.at(0), HasSubstr("root does not follow from its identity"));
}

TEST_F(ScrubTest, AnUnreadableDiskEndsItAndIsNoDamage) {
  Put("a", 1, 3);
  ArmFault("payload.read", FaultKind::kIoError, 1, 1);
  ScrubState state;
  const Status status = Scrub(&state);
  DisarmFaults();
  EXPECT_EQ(status.code(), StatusCode::kIoError);
  EXPECT_EQ(state.damaged, 0u);
  ASSERT_TRUE(Scrub(&state).ok()) << "a later try goes on";
  EXPECT_EQ(state.blocks, 3u);
}

TEST_F(ScrubTest, AJobIsWatchedAndTellsItsFindings) {
  Put("a", 1, 4);
  Damage("a", 3);
  StartDaemonOverStore();
  auto client = Connect();
  const auto job = client->Scrub(0);
  ASSERT_TRUE(job.ok()) << job.error().message;
  EXPECT_EQ(job->kind(), "scrub");
  const auto ended = client->WatchJob(job->id(), nullptr);
  ASSERT_TRUE(ended.ok()) << ended.error().message;
  EXPECT_EQ(ended->state(), "done") << ended->error();
  EXPECT_EQ(ended->scrub().blocks(), 4u);
  EXPECT_EQ(ended->scrub().damaged(), 1u);
  EXPECT_EQ(ended->scrub().findings_size(), 1);
  const auto doctor = client->Doctor();
  ASSERT_TRUE(doctor.ok());
  std::string text;
  for (const v1::Check& check : doctor->checks()) {
    if (check.name() == "scrub") text = check.text();
  }
  EXPECT_THAT(text, HasSubstr("4 of 4 blocks checked, 1 damaged"));
}

// At one block a day nothing moves, so the job is under way for as long as the test wants.
TEST_F(ScrubTest, OneAtATimeCancelledAtOnceAndResumedByTheNextDaemon) {
  Put("a", 1, 6);
  StartDaemonOverStore();
  auto client = Connect();
  const auto job = client->Scrub(1);
  ASSERT_TRUE(job.ok());
  EXPECT_EQ(client->Scrub(0)->id(), job->id()) << "a second one joins the first";
  WaitFor("the first block", [&] { return client->Job(job->id())->scrub().blocks() >= 1; });
  StopDaemon();
  OpenStore();
  StartDaemonOverStore();
  client = Connect();
  const auto resumed = client->Job(job->id());
  ASSERT_TRUE(resumed.ok()) << resumed.error().message;
  EXPECT_THAT(resumed->state(), ::testing::AnyOf("queued", "running"));
  EXPECT_EQ(resumed->resumed_times(), 1u);
  EXPECT_GE(resumed->scrub().blocks(), 1u);
  // A prefill does not wait for it.
  MakeReady(*client, "b", std::string(20, 'x'));
  ASSERT_TRUE(client->CancelJob(job->id()).ok());
  EXPECT_EQ(client->WatchJob(job->id(), nullptr)->state(), "cancelled");
}

TEST_F(ScrubTest, BeginsByTheClockAndNotBefore) {
  FakeEngine engine(*store_, controls_);
  constexpr int64_t kDay = 86400000;
  int64_t now = 100 * kDay;
  JobQueue jobs(engine, *store_, JobQueueOptions{}, [&] { return now; });
  jobs.Start();
  const auto scrubs = [&] { return jobs.List().size(); };
  ScrubWhenDue(*store_, jobs, 7 * kDay, 0, now);
  EXPECT_EQ(scrubs(), 0u) << "nothing is stored";
  Put("a", 1, 2);
  ScrubWhenDue(*store_, jobs, 0, 0, now);
  EXPECT_EQ(scrubs(), 0u) << "switched off";
  ScrubWhenDue(*store_, jobs, 7 * kDay, 0, now);
  ASSERT_EQ(scrubs(), 1u);
  WaitFor("the scrub", [&] { return jobs.LastScrub().has_value(); });
  ScrubWhenDue(*store_, jobs, 7 * kDay, 0, now + 6 * kDay);
  EXPECT_EQ(scrubs(), 1u);
  ScrubWhenDue(*store_, jobs, 7 * kDay, 0, now + 8 * kDay);
  EXPECT_EQ(scrubs(), 2u);
  jobs.Stop();
}

}  // namespace
}  // namespace corpusd
