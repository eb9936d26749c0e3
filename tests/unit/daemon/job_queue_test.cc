#include "daemon/jobs/job_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "daemon/jobs/maintenance.h"
#include "tests/support/fake_block_store.h"
#include "tests/support/fake_engine.h"

namespace corpusd {
namespace {

using ::testing::HasSubstr;

class JobQueueTest : public ::testing::Test {
 protected:
  JobQueueTest() { Open(); }
  ~JobQueueTest() override { controls_.ReleasePrefill(); }

  void Open(size_t queued_max = 1024, size_t finished_max = 256) {
    jobs_.reset();
    JobQueueOptions options;
    options.queued_max = queued_max;
    options.finished_max = finished_max;
    options.watch_interval = std::chrono::milliseconds(0);
    jobs_ = std::make_unique<JobQueue>(engine_, store_, options, [this] { return now_ms_.load(); });
    jobs_->Start();
  }

  void Create(const std::string& name, uint64_t tokens, CorpusState state = CorpusState::kQueued) {
    CorpusRecord record;
    record.name = name;
    record.tokens = tokens;
    record.state = state;
    ASSERT_TRUE(store_.CreateCorpus(record, {}).ok());
  }

  uint64_t Submit(const std::string& name) {
    auto place = jobs_->Reserve();
    EXPECT_TRUE(place.ok());
    return jobs_->SubmitPrefill(name, *std::move(place)).id;
  }

  template <typename Condition>
  void WaitFor(Condition condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (!condition()) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  void WaitForState(uint64_t id, JobState state) {
    WaitFor([&] { return jobs_->Get(id)->state == state; });
  }

  std::atomic<int64_t> now_ms_{1000};
  FakeEngineControls controls_;
  std::shared_ptr<FakeDisk> disk_ = std::make_shared<FakeDisk>();
  FakeBlockStore store_{disk_};
  FakeEngine engine_{store_, controls_};
  std::unique_ptr<JobQueue> jobs_;
};

TEST_F(JobQueueTest, RunsToTheEndAndTellsWatchers) {
  controls_.HoldPrefill();
  Create("a", 64);
  const uint64_t id = Submit("a");
  std::mutex mutex;
  std::vector<uint64_t> done_tokens;
  JobState last = JobState::kQueued;
  ASSERT_TRUE(jobs_
                  ->Watch(id,
                          [&](const JobRecord& job) {
                            std::lock_guard lock(mutex);
                            done_tokens.push_back(job.done_tokens);
                            last = job.state;
                          })
                  .ok());
  controls_.ReleasePrefill();
  WaitForState(id, JobState::kDone);
  std::lock_guard lock(mutex);
  EXPECT_EQ(last, JobState::kDone);
  EXPECT_TRUE(std::is_sorted(done_tokens.begin(), done_tokens.end()));
  EXPECT_EQ(done_tokens.back(), 64u);
  EXPECT_GE(done_tokens.size(), 6u);  // first, running, four runs, the end
  EXPECT_EQ(store_.GetCorpus("a")->state, CorpusState::kReady);
}

TEST_F(JobQueueTest, OneAfterTheOther) {
  controls_.HoldPrefill();
  Create("a", 32);
  Create("b", 32);
  const uint64_t first = Submit("a"), second = Submit("b");
  WaitForState(first, JobState::kRunning);
  EXPECT_EQ(jobs_->Get(second)->state, JobState::kQueued);
  controls_.ReleasePrefill();
  WaitForState(second, JobState::kDone);
  EXPECT_EQ(jobs_->Get(first)->state, JobState::kDone);
}

TEST_F(JobQueueTest, CancelsRunningAndQueued) {
  controls_.HoldPrefill();
  Create("a", 64);
  Create("b", 64);
  const uint64_t running = Submit("a"), queued = Submit("b");
  controls_.PermitRuns(2);
  WaitFor([&] { return jobs_->Get(running)->done_tokens == 32; });
  ASSERT_TRUE(jobs_->Cancel(queued).ok());
  EXPECT_EQ(jobs_->Get(queued)->state, JobState::kCancelled);
  ASSERT_TRUE(jobs_->CancelAndWait("a", {}).ok());
  EXPECT_EQ(jobs_->Get(running)->state, JobState::kCancelled);
  EXPECT_EQ(store_.GetCorpus("a")->state, CorpusState::kCancelled);
  EXPECT_EQ(store_.GetCorpus("a")->durable_tokens, 32u);
  EXPECT_EQ(store_.GetCorpus("b")->state, CorpusState::kCancelled);
  EXPECT_EQ(jobs_->Cancel(running).status().code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(jobs_->Cancel(999).status().code(), StatusCode::kNotFound);
}

TEST_F(JobQueueTest, RestartResumesAndCounts) {
  controls_.HoldPrefill();
  Create("a", 64);
  Create("b", 64);
  const uint64_t first = Submit("a"), second = Submit("b");
  controls_.PermitRuns(1);
  WaitFor([&] { return jobs_->Get(first)->done_tokens == 16; });
  jobs_->Stop();
  EXPECT_EQ(jobs_->Get(first)->state, JobState::kQueued);
  Open();
  controls_.ReleasePrefill();
  WaitForState(second, JobState::kDone);
  EXPECT_EQ(jobs_->Get(first)->state, JobState::kDone);
  EXPECT_EQ(jobs_->Get(first)->resumed_times, 1u);
  EXPECT_EQ(jobs_->Get(second)->resumed_times, 0u);
  EXPECT_EQ(controls_.runs, 8);  // nothing was computed twice
}

TEST_F(JobQueueTest, StartFindsCorporaWithoutJobsAndDropsBrokenRecords) {
  jobs_->Stop();
  Create("orphan", 16, CorpusState::kPrefilling);
  Create("ready", 16, CorpusState::kReady);
  Create("cancelled", 16, CorpusState::kCancelled);
  ASSERT_TRUE(store_.PutJob(7, "not json").ok());
  JobRecord gone;
  gone.id = 8;
  gone.corpus = "gone";
  ASSERT_TRUE(store_.PutJob(8, EncodeJob(gone)).ok());
  Open();
  WaitFor([&] { return store_.GetCorpus("orphan")->state == CorpusState::kReady; });
  EXPECT_EQ(jobs_->Get(7).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(jobs_->Get(8)->state, JobState::kFailed);
  EXPECT_EQ(jobs_->List().size(), 2u);
  EXPECT_GT(jobs_->List().back().id, 8u);
}

// The answer to a cancel was given; a daemon that dies before the job has ended keeps its word.
TEST_F(JobQueueTest, ARestartDoesNotTakeUpWhatAUserCancelled) {
  controls_.HoldPrefill();
  Create("a", 64);
  const uint64_t id = Submit("a");
  controls_.PermitRuns(1);
  WaitFor([&] { return jobs_->Get(id)->done_tokens == 16; });
  jobs_->Stop();
  JobRecord asked = *jobs_->Get(id);
  asked.state = JobState::kRunning;
  asked.cancel_asked = true;
  ASSERT_TRUE(store_.PutJob(id, EncodeJob(asked)).ok());
  controls_.ReleasePrefill();
  Open();
  EXPECT_EQ(jobs_->Get(id)->state, JobState::kCancelled);
  EXPECT_EQ(store_.GetCorpus("a")->state, CorpusState::kCancelled);
  EXPECT_FALSE(jobs_->ActiveJob("a"));
  Open();
  EXPECT_EQ(store_.GetCorpus("a")->state, CorpusState::kCancelled);
}

// A disk that was full, a model that was another one: the next start may be luckier.
TEST_F(JobQueueTest, AFailedPrefillIsTakenUpAtTheNextStart) {
  controls_.prefill_error = "the disk is full";
  Create("a", 64);
  WaitForState(Submit("a"), JobState::kFailed);
  jobs_->Stop();
  controls_.prefill_error.clear();
  Open();
  WaitFor([&] { return store_.GetCorpus("a")->state == CorpusState::kReady; });
  EXPECT_EQ(controls_.runs, 4) << "what was durable was not computed again";
}

TEST_F(JobQueueTest, APrefillThatAFullDiskCutOffIsTriedAgainLaterAndLater) {
  controls_.prefill_error = "the disk is full";
  Create("a", 64);
  const uint64_t id = Submit("a");
  WaitForState(id, JobState::kFailed);
  EXPECT_EQ(jobs_->Get(id)->failed_times, 1u);
  EXPECT_EQ(jobs_->Get(id)->retry_at_ms, 6000);
  now_ms_ = 5999;
  jobs_->RetryFailed();
  EXPECT_EQ(jobs_->Get(id)->state, JobState::kFailed);
  now_ms_ = 6000;
  jobs_->RetryFailed();
  WaitForState(id, JobState::kFailed);
  EXPECT_EQ(jobs_->Get(id)->retry_at_ms, 16000);
  controls_.prefill_error.clear();
  now_ms_ = 16000;
  jobs_->RetryFailed();
  WaitForState(id, JobState::kDone);
  const JobRecord job = *jobs_->Get(id);
  EXPECT_EQ(job.failed_times, 2u);
  EXPECT_EQ(job.retry_at_ms, 0);
  EXPECT_EQ(job.error, "");
  EXPECT_EQ(jobs_->List().size(), 1u);
  EXPECT_EQ(store_.GetCorpus("a")->state, CorpusState::kReady);
  EXPECT_EQ(controls_.runs, 4) << "what was durable was not computed again";
}

TEST_F(JobQueueTest, WhatWillNotPassIsNotTriedAgain) {
  controls_.prefill_error = "made with another identity";
  controls_.prefill_code = StatusCode::kFailedPrecondition;
  Create("a", 64);
  const uint64_t id = Submit("a");
  WaitForState(id, JobState::kFailed);
  EXPECT_EQ(jobs_->Get(id)->retry_at_ms, 0);
  EXPECT_EQ(jobs_->Cancel(id).status().code(), StatusCode::kFailedPrecondition);
}

TEST_F(JobQueueTest, ARetryEndsWithACancelAndWithWhateverBecameOfTheCorpus) {
  controls_.prefill_error = "the disk is full";
  std::map<std::string, uint64_t> ids;
  for (const char* name : {"cancelled", "removed", "by_hand"}) {
    Create(name, 64);
    ids[name] = Submit(name);
    WaitForState(ids[name], JobState::kFailed);
  }
  controls_.prefill_error.clear();
  ASSERT_TRUE(jobs_->Cancel(ids["cancelled"]).ok());
  ASSERT_TRUE(store_.RemoveCorpus("removed").ok());
  const uint64_t by_hand = Submit("by_hand");
  EXPECT_EQ(jobs_->Get(ids["by_hand"])->retry_at_ms, 0);
  WaitForState(by_hand, JobState::kDone);
  now_ms_ = 100000;
  jobs_->RetryFailed();
  EXPECT_EQ(jobs_->Get(ids["cancelled"])->state, JobState::kCancelled);
  EXPECT_EQ(store_.GetCorpus("cancelled")->state, CorpusState::kCancelled);
  EXPECT_EQ(jobs_->Get(ids["removed"])->state, JobState::kFailed);
  EXPECT_EQ(jobs_->Get(ids["by_hand"])->state, JobState::kFailed);
  for (const JobRecord& job : jobs_->List()) EXPECT_EQ(job.retry_at_ms, 0) << job.corpus;
}

TEST_F(JobQueueTest, NothingIsTriedAgainWhileTheStoreIsReadOnly) {
  controls_.prefill_error = "the disk is full";
  Create("a", 64);
  const uint64_t id = Submit("a");
  WaitForState(id, JobState::kFailed);
  controls_.prefill_error.clear();
  now_ms_ = 100000;
  const auto set_full = [&](bool full) {
    std::lock_guard lock(disk_->mutex);
    disk_->full = full;
  };
  set_full(true);
  (void)store_.write_gate().Observe(ResourceExhaustedError("no space"), 1);
  WatchStore(store_, *jobs_, now_ms_);
  EXPECT_EQ(jobs_->Get(id)->state, JobState::kFailed);
  set_full(false);
  WatchStore(store_, *jobs_, now_ms_);
  WaitForState(id, JobState::kDone);
}

TEST_F(JobQueueTest, ACorpusHasOneUnfinishedJob) {
  controls_.HoldPrefill();
  Create("a", 64);
  const uint64_t id = Submit("a");
  EXPECT_EQ(Submit("a"), id);
  EXPECT_EQ(jobs_->List().size(), 1u);
}

TEST_F(JobQueueTest, FailureIsToldAndKept) {
  controls_.prefill_error = "the disk is full";
  Create("a", 64);
  const uint64_t id = Submit("a");
  WaitForState(id, JobState::kFailed);
  EXPECT_EQ(jobs_->Get(id)->error, "resource_exhausted: the disk is full");
  EXPECT_EQ(store_.GetCorpus("a")->state, CorpusState::kFailed);
  EXPECT_EQ(store_.GetCorpus("a")->error, "resource_exhausted: the disk is full");
}

TEST_F(JobQueueTest, IsBounded) {
  Open(2);
  controls_.HoldPrefill();
  Create("a", 16);
  Submit("a");
  auto reserved = jobs_->Reserve();
  ASSERT_TRUE(reserved.ok());
  EXPECT_EQ(jobs_->Reserve().status().code(), StatusCode::kUnavailable);
  { JobQueue::Place given_back = *std::move(reserved); }
  EXPECT_TRUE(jobs_->Reserve().ok());
}

TEST_F(JobQueueTest, KeepsTheLastFinishedOnly) {
  Open(1024, 3);
  for (int i = 0; i < 6; ++i) {
    Create("c" + std::to_string(i), 16);
    WaitForState(Submit("c" + std::to_string(i)), JobState::kDone);
  }
  WaitFor([&] { return jobs_->List().size() == 3; });
  EXPECT_EQ(store_.ListJobs().size(), 3u);
  EXPECT_EQ(jobs_->List().back().corpus, "c5");
}

TEST_F(JobQueueTest, ExpiryTakesUnpinnedIdleCorporaOnly) {
  controls_.HoldPrefill();
  for (const char* name : {"old", "pinned", "busy", "young", "never"}) Create(name, 16);
  const auto change = [&](const char* name, int64_t expires, bool pin, int64_t pin_expires) {
    CorpusRecord record = *store_.GetCorpus(name);
    record.expires_at_ms = expires;
    if (pin) record.pin = CorpusPin{2, pin_expires};
    ASSERT_TRUE(store_.UpdateCorpus(record).ok());
  };
  change("old", 500, false, 0);
  change("pinned", 500, true, 0);
  change("busy", 500, false, 0);
  change("young", 1500, true, 900);
  Submit("busy");
  const MaintenanceReport report = ExpireCorpora(store_, *jobs_, 1000);
  EXPECT_EQ(report.removed_corpora, 1u);
  EXPECT_EQ(report.ended_pins, 1u);
  EXPECT_FALSE(store_.GetCorpus("old").ok());
  EXPECT_TRUE(store_.GetCorpus("pinned")->pin.has_value());
  EXPECT_FALSE(store_.GetCorpus("young")->pin.has_value());
  EXPECT_EQ(store_.ListCorpora().size(), 4u);
}

TEST(JobRecord, SurvivesItsText) {
  JobRecord job;
  job.id = 5;
  job.corpus = "filings";
  job.state = JobState::kFailed;
  job.error = "no \"room\"";
  job.done_tokens = 12;
  job.resumed_times = 3;
  job.failed_times = 2;
  job.retry_at_ms = 99;
  const auto back = DecodeJob(EncodeJob(job));
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(back->corpus, job.corpus);
  EXPECT_EQ(back->state, job.state);
  EXPECT_EQ(back->error, job.error);
  EXPECT_EQ(back->done_tokens, job.done_tokens);
  EXPECT_EQ(back->resumed_times, job.resumed_times);
  EXPECT_EQ(back->failed_times, job.failed_times);
  EXPECT_EQ(back->retry_at_ms, job.retry_at_ms);
  for (const char* text : {"", "[]", "{}", R"({"id":1,"corpus":"a","state":"odd"})",
                           R"({"id":"1","corpus":"a","state":"done"})"}) {
    EXPECT_EQ(DecodeJob(text).status().code(), StatusCode::kCorruption) << text;
  }
}

TEST(RateMeter, FollowsTheLastHalfMinute) {
  RateMeter rate;
  const RateMeter::TimePoint start{};
  EXPECT_LT(rate.SecondsFor(100), 0);
  rate.Add(start, 0);
  rate.Add(start + std::chrono::seconds(10), 1000);
  EXPECT_DOUBLE_EQ(rate.PerSecond(), 100);
  EXPECT_DOUBLE_EQ(rate.SecondsFor(500), 5);
  for (int s = 11; s <= 60; ++s) {
    rate.Add(start + std::chrono::seconds(s), 1000 + static_cast<uint64_t>(s - 10) * 10);
  }
  EXPECT_DOUBLE_EQ(rate.PerSecond(), 10);
}

}  // namespace
}  // namespace corpusd
