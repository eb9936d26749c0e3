// The daemon's metrics: numbers of what happened, as a client reads them and as Prometheus does.
#include <gmock/gmock.h>

#include <cmath>

#include "daemon/metrics/daemon_metrics.h"
#include "daemon/metrics/exposition.h"
#include "daemon/metrics/label_values.h"
#include "tests/support/daemon_fixture.h"

namespace corpusd {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(ShareByBytes, SharesEveryTokenOnce) {
  EXPECT_THAT(ShareByBytes(1000, {0, 300, 100}), ElementsAre(0, 750, 250));
  EXPECT_THAT(ShareByBytes(10, {1, 1, 1}), ElementsAre(4, 3, 3));
  EXPECT_THAT(ShareByBytes(7, {0, 0, 0}), ElementsAre(0, 7, 0));
  EXPECT_THAT(ShareByBytes(0, {5, 5, 5}), ElementsAre(0, 0, 0));
  const uint64_t many = uint64_t{1} << 60;
  EXPECT_THAT(ShareByBytes(10'000'000, {many, 0, many}), ElementsAre(5'000'000, 0, 5'000'000));
}

class MetricsTest : public DaemonTest {
 protected:
  MetricsTest() {
    StartDaemon();
    client_ = Connect();
  }

  const v1::StatsFamily* Find(const v1::StatsReply& stats, const std::string& name) {
    for (const v1::StatsFamily& family : stats.families()) {
      if (family.name() == "corpusd_" + name) return &family;
    }
    return nullptr;
  }
  // Of the one sample with these labels, in order.
  double Value(const std::string& name, const std::vector<std::string>& labels = {}) {
    const auto stats = client_->Stats();
    EXPECT_TRUE(stats.ok());
    const v1::StatsFamily* const family = Find(*stats, name);
    if (family == nullptr) return std::nan("");
    for (const v1::StatsSample& sample : family->samples()) {
      std::vector<std::string> values;
      for (const v1::StatsLabel& label : sample.labels()) values.push_back(label.value());
      std::sort(values.begin(), values.end());
      auto wanted = labels;
      std::sort(wanted.begin(), wanted.end());
      if (values == wanted) return sample.value();
    }
    return std::nan("");
  }
  v1::StatsHistogram Histogram(const std::string& name) {
    const auto stats = client_->Stats();
    EXPECT_TRUE(stats.ok());
    const v1::StatsFamily* const family = Find(*stats, name);
    if (family == nullptr || family->samples().empty()) return {};
    return family->samples(0).histogram();
  }
  ClientResult<v1::AskReply> Ask(const std::string& corpus, const std::string& question) {
    v1::AskRequest request;
    request.set_name(corpus);
    request.set_question(question);
    request.set_max_tokens(8);
    return client_->Ask(request, nullptr);
  }

  std::unique_ptr<CorpusClient> client_;
};

TEST_F(MetricsTest, QuestionsRequestsAndErrorsAreCounted) {
  MakeReady(*client_, "a", std::string(100, 't'));
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(Ask("a", "q").ok());
  ASSERT_FALSE(Ask("a", "fail").ok());
  ASSERT_FALSE(Ask("nobody", "q").ok());
  ASSERT_FALSE(Ask("a", "").ok());
  EXPECT_EQ(Value("questions_total", {"length"}), 3);
  EXPECT_EQ(Value("questions_total", {"corruption"}), 1);
  EXPECT_EQ(Value("requests_total", {"rpc", "ask", "ok"}), 3);
  EXPECT_EQ(Value("requests_total", {"rpc", "ask", "invalid_argument"}), 1);
  EXPECT_EQ(Value("errors_total", {"not_found"}), 1);
  EXPECT_EQ(Value("errors_total", {"corruption"}), 1);
  EXPECT_EQ(Value("errors_total", {"device_error"}), 0);
  const v1::StatsHistogram first_token = Histogram("first_token_seconds");
  EXPECT_EQ(first_token.count(), 3u);
  EXPECT_GT(first_token.sum(), 0);
  const auto& last = first_token.buckets(first_token.buckets_size() - 1);
  EXPECT_TRUE(std::isinf(last.upper_bound()));
  EXPECT_EQ(last.cumulative_count(), 3u);
}

TEST_F(MetricsTest, WhatPromptsFoundIsTold) {
  EXPECT_EQ(Value("prompt_cache_tokens_total", {"found"}), 7);
  EXPECT_EQ(Value("prompt_cache_tokens_total", {"computed"}), 9);
  EXPECT_EQ(Value("prompt_cache_used_bytes"), 5);
  EXPECT_EQ(Value("prompt_cache_capacity_bytes"), 6);
  EXPECT_EQ(Value("prompt_cache_evicted_bytes_total"), 8);
}

TEST_F(MetricsTest, ClientsComeAndGo) {
  EXPECT_EQ(Value("connections", {"rpc"}), 1);
  {
    const auto other = Connect();
    ASSERT_TRUE(other->Ping().ok());
    EXPECT_EQ(Value("connections", {"rpc"}), 2);
  }
  WaitFor("the other client to go", [&] { return Value("connections", {"rpc"}) == 1; });
  EXPECT_EQ(Value("connections_total", {"rpc"}), 2);
  EXPECT_EQ(Value("connections_refused_total", {"rpc"}), 0);
}

TEST_F(MetricsTest, JobsAreSeenWhileTheyRunAndCountedWhenTheyEnd) {
  controls_.HoldPrefill();
  ASSERT_TRUE(Ingest(*client_, "a", std::string(64, 't')).ok());
  ASSERT_TRUE(Ingest(*client_, "b", std::string(64, 't')).ok());
  WaitFor("the first job", [&] { return Value("jobs", {"prefill", "running"}) == 1; });
  EXPECT_EQ(Value("jobs", {"prefill", "queued"}), 1);
  controls_.PermitRuns(2);  // half of it
  WaitFor("half of it", [&] { return Value("job_done_ratio", {"1", "prefill", "a"}) == 0.5; });
  controls_.ReleasePrefill();
  WaitFor("both to end", [&] { return Value("jobs_ended_total", {"prefill", "done"}) == 2; });
  EXPECT_EQ(Value("jobs", {"prefill", "running"}), 0);
  EXPECT_TRUE(std::isnan(Value("job_done_ratio", {"1", "prefill", "a"})));
  EXPECT_EQ(Value("corpora", {"ready"}), 2);
}

TEST_F(MetricsTest, TiersAreThoseOfTheStore) {
  MakeReady(*client_, "a", std::string(100, 't'));
  const auto usage = client_->DiskUsage();
  ASSERT_TRUE(usage.ok());
  for (const v1::Tier& tier : usage->tiers()) {
    EXPECT_EQ(Value("tier_capacity_bytes", {tier.name()}), tier.capacity_bytes());
    EXPECT_EQ(Value("tier_used_bytes", {tier.name()}), tier.used_bytes());
    EXPECT_EQ(Value("tier_pinned_bytes", {tier.name()}), tier.pinned_bytes());
  }
}

TEST(DaemonMetrics, AnAnswersTokensAreCountedByTierAndResult) {
  // The store and the engine tell the metrics; here a test does.
  DaemonMetrics metrics;
  QuestionReport report;
  report.cached_tokens = 400;
  report.recomputed_tokens = 28;
  report.completion_tokens = 11;
  report.host_bytes = 3 << 20;
  report.disk_bytes = 1 << 20;
  report.decode_tokens_per_s = 100;
  metrics.OnAnswer(report);
  metrics.OnAnswer(report);
  metrics.OnPrefill(128, 256);
  metrics.OnEvicted(TierKind::kDisk, EvictionReason::kRoom, 3, 4096);
  metrics.OnDamaged(TierKind::kHost);
  metrics.OnPublished(5, 640);
  const std::string text = MetricsText(metrics);
  EXPECT_THAT(text, HasSubstr("corpusd_tokens_total{result=\"cached\",tier=\"host\"} 600\n"));
  EXPECT_THAT(text, HasSubstr("corpusd_tokens_total{result=\"cached\",tier=\"disk\"} 200\n"));
  EXPECT_THAT(text, HasSubstr("corpusd_tokens_total{result=\"recomputed\",tier=\"none\"} 56\n"));
  EXPECT_THAT(text, HasSubstr("corpusd_tokens_total{result=\"completion\",tier=\"none\"} 22\n"));
  EXPECT_THAT(text, HasSubstr("corpusd_read_bytes_total{tier=\"host\"} 6291456\n"));
  // 2 answers of 11 tokens: 20 times 10 ms.
  EXPECT_THAT(text, HasSubstr("corpusd_decode_token_seconds_count 20\n"));
  EXPECT_THAT(text, HasSubstr("corpusd_decode_token_seconds_bucket{le=\"0.005\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("corpusd_decode_token_seconds_bucket{le=\"0.01\"} 20\n"));
  EXPECT_THAT(text, HasSubstr("corpusd_prefill_tokens_total{result=\"reused\"} 256\n"));
  EXPECT_THAT(text, HasSubstr("corpusd_evicted_blocks_total{reason=\"room\",tier=\"disk\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("corpusd_crc_failures_total{tier=\"host\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("corpusd_published_bytes_total 640\n"));
  EXPECT_THAT(text, HasSubstr("# TYPE corpusd_tokens_total counter\n"));
}

}  // namespace
}  // namespace corpusd
