// stats and top: figures out of metrics, and how they are printed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "client/ctl/stats_reading.h"
#include "client/ctl/text.h"
#include "client/ctl/top_screen.h"
#include "ctl_scripted_daemon.h"

namespace corpusd::ctl {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Buckets by upper bound and how many are in each.
v1::StatsHistogram MakeHistogram(const std::vector<std::pair<double, uint64_t>>& buckets,
                                 double sum) {
  v1::StatsHistogram histogram;
  uint64_t count = 0;
  for (const auto& [bound, inside] : buckets) {
    count += inside;
    v1::StatsBucket* const bucket = histogram.add_buckets();
    bucket->set_upper_bound(bound);
    bucket->set_cumulative_count(count);
  }
  histogram.set_count(count);
  histogram.set_sum(sum);
  return histogram;
}

TEST(Quantile, IsThatOfPrometheus) {
  const auto histogram = MakeHistogram({{0.1, 10}, {0.2, 80}, {0.5, 10}, {kInfinity, 0}}, 17);
  EXPECT_DOUBLE_EQ(*Quantile(histogram, 0.5), 0.15);  // 40 of 80 into 0.1 to 0.2
  EXPECT_DOUBLE_EQ(*Quantile(histogram, 0.95), 0.35);
  EXPECT_DOUBLE_EQ(*Quantile(histogram, 0.05), 0.05);
  // What lies beyond the last bound is said to be that bound.
  EXPECT_DOUBLE_EQ(*Quantile(MakeHistogram({{0.1, 1}, {kInfinity, 9}}, 17), 0.9), 0.1);
  EXPECT_FALSE(Quantile(MakeHistogram({{0.1, 0}, {kInfinity, 0}}, 0), 0.5));
  EXPECT_FALSE(Quantile({}, 0.5));
}

TEST(Quantile, BetweenTwoReadingsIsOfWhatCameBetween) {
  const auto before = MakeHistogram({{0.1, 100}, {0.2, 0}, {kInfinity, 0}}, 5);
  const auto now = MakeHistogram({{0.1, 100}, {0.2, 4}, {kInfinity, 0}}, 5.6);
  const auto between = Between(before, now);
  EXPECT_EQ(between.count(), 4u);
  EXPECT_NEAR(between.sum(), 0.6, 1e-9);
  EXPECT_DOUBLE_EQ(*Quantile(between, 0.5), 0.15);
  // A daemon that began anew.
  EXPECT_EQ(Between(now, MakeHistogram({{0.1, 2}, {0.2, 0}, {kInfinity, 0}}, 0.1)).count(), 2u);
}

void AddSample(v1::StatsReply* reply, const std::string& name, const std::string& type,
               const std::vector<std::pair<std::string, std::string>>& labels, double value) {
  v1::StatsFamily* family = nullptr;
  for (v1::StatsFamily& known : *reply->mutable_families()) {
    if (known.name() == "corpusd_" + name) family = &known;
  }
  if (family == nullptr) {
    family = reply->add_families();
    family->set_name("corpusd_" + name);
    family->set_type(type);
  }
  v1::StatsSample* const sample = family->add_samples();
  sample->set_value(value);
  for (const auto& [label, text] : labels) {
    sample->add_labels()->set_name(label);
    sample->mutable_labels()->rbegin()->set_value(text);
  }
}

// Metrics of a daemon that has answered so many questions.
v1::StatsReply MakeStats(uint64_t questions) {
  v1::StatsReply reply;
  const auto times = static_cast<double>(questions);
  AddSample(&reply, "uptime_seconds", "gauge", {}, 100);
  AddSample(&reply, "connections", "gauge", {{"surface", "rpc"}}, 3);
  AddSample(&reply, "questions_total", "counter", {{"result", "stop"}}, times);
  AddSample(&reply, "errors_total", "counter", {{"code", "not_found"}}, 0);
  AddSample(&reply, "tokens_total", "counter", {{"result", "cached"}, {"tier", "host"}},
            90 * times);
  AddSample(&reply, "tokens_total", "counter", {{"result", "recomputed"}, {"tier", "none"}},
            10 * times);
  AddSample(&reply, "tokens_total", "counter", {{"result", "completion"}, {"tier", "none"}},
            8 * times);
  AddSample(&reply, "read_bytes_total", "counter", {{"tier", "host"}}, 1024 * times);
  AddSample(&reply, "tier_capacity_bytes", "gauge", {{"tier", "host"}}, 4096);
  AddSample(&reply, "tier_used_bytes", "gauge", {{"tier", "host"}}, 1024);
  AddSample(&reply, "tier_pinned_bytes", "gauge", {{"tier", "host"}}, 512);
  v1::StatsFamily* const first = reply.add_families();
  first->set_name("corpusd_first_token_seconds");
  first->set_type("histogram");
  *first->add_samples()->mutable_histogram() =
      MakeHistogram({{0.1, questions}, {kInfinity, 0}}, 0.05 * times);
  return reply;
}

TopReading MakeReading(int64_t time_ms, uint64_t questions) {
  TopReading reading;
  reading.time_ms = time_ms;
  reading.version.set_version("9.9");
  reading.stats = Stats(MakeStats(questions));
  v1::Corpus* const old = reading.corpora.add_corpora();
  old->set_name("old");
  old->set_state("ready");
  old->set_last_used_at_ms(1000);
  v1::Corpus* const corpus = reading.corpora.add_corpora();
  corpus->set_name("nasty\x1b[2J" + std::string(300, 'n'));
  corpus->set_state("prefilling");
  corpus->set_last_used_at_ms(2000);
  v1::Job* const job = reading.jobs.add_jobs();
  job->set_id(7);
  job->set_kind("prefill");
  job->set_corpus("filings");
  job->set_state("running");
  job->set_done_tokens(25);
  job->set_total_tokens(100);
  reading.jobs.add_jobs()->set_state("done");
  return reading;
}

TEST(TopScreen, RatesAreOfTheTimeBetween) {
  const TopRates rates = RatesBetween(MakeReading(10'000, 50), MakeReading(12'000, 60));
  EXPECT_DOUBLE_EQ(rates.questions, 5);
  EXPECT_DOUBLE_EQ(rates.answer_tokens, 40);
  EXPECT_DOUBLE_EQ(rates.host_bytes, 5120);
  EXPECT_DOUBLE_EQ(*rates.hit_ratio, 0.9);
  EXPECT_DOUBLE_EQ(*rates.first_token_p50_s, 0.05);
  const TopRates idle = RatesBetween(MakeReading(10'000, 50), MakeReading(12'000, 50));
  EXPECT_EQ(idle.questions, 0);
  EXPECT_FALSE(idle.hit_ratio);
  EXPECT_FALSE(idle.first_token_p50_s);
}

TEST(TopScreen, LinesFitAnyTerminal) {
  const TopReading before = MakeReading(10'000, 50), now = MakeReading(12'000, 60);
  for (const int columns : {1, 20, 40, 80, 200}) {
    for (const int rows : {1, 5, 24}) {
      const auto lines = TopLines(before, now, {columns, rows, false});
      EXPECT_LE(lines.size(), static_cast<size_t>(rows));
      for (const std::string& line : lines) {
        EXPECT_LE(DisplayWidth(line), static_cast<size_t>(columns)) << line;
        EXPECT_THAT(line, Not(HasSubstr("\x1b")));
      }
    }
  }
  // With colours, too: they take no room, and each that begins ends.
  for (const std::string& line : TopLines(before, now, {12, 0, true})) {
    std::string plain;
    int open = 0;
    for (size_t i = 0; i < line.size(); ++i) {
      if (line[i] != '\x1b') {
        plain += line[i];
        continue;
      }
      const size_t end = line.find('m', i);
      open = line.substr(i, end - i) == "\x1b[0" ? 0 : 1;
      i = end;
    }
    EXPECT_LE(DisplayWidth(plain), 12u) << line;
    EXPECT_EQ(open, 0) << line;
  }
  const auto lines = TopLines(before, now, {100, 0, false});
  EXPECT_THAT(lines, Contains(HasSubstr("questions 5.0/s, first token p50 50 ms p95 95 ms")));
  EXPECT_THAT(lines, Contains(HasSubstr("from the store 90.0 %")));
  EXPECT_THAT(lines, Contains(StartsWith("host   [######..................] 25%")));
  EXPECT_THAT(lines, Contains(AllOf(HasSubstr("filings"), HasSubstr("[###.........] 25%"))));
  // Used last comes first.
  std::string all;
  for (const std::string& line : lines) all += line + "\n";
  EXPECT_LT(all.find("nasty\\x1b[2J"), all.find("\nold"));
}

class CtlStats : public ::testing::Test {
 protected:
  CtlRun Run(std::vector<std::string> words) {
    words.insert(words.end(), {"--socket", daemon_.socket_path()});
    return RunCtl(words);
  }
  static std::vector<v1::Response> Answer(const v1::Request& request) {
    v1::Response response = LastResponse();
    if (request.has_stats()) {
      *response.mutable_stats() = MakeStats(60);
    } else if (request.has_version()) {
      response.mutable_version()->set_version("9.9");
    } else if (request.has_list()) {
      *response.mutable_list() = MakeReading(0, 0).corpora;
    } else {
      *response.mutable_jobs() = MakeReading(0, 0).jobs;
    }
    return {response};
  }
  ScriptedDaemon daemon_{Answer};
};

TEST_F(CtlStats, AreATableOrObjects) {
  const CtlRun table = Run({"stats"});
  EXPECT_EQ(table.exit_code, 0) << table.err;
  EXPECT_THAT(table.out, HasSubstr("result=cached tier=host      5,400"));
  EXPECT_THAT(table.out, HasSubstr("60, mean 50 ms, p50 50 ms"));
  const auto objects = nlohmann::json::parse(Run({"stats", "tokens", "-o", "json"}).out);
  ASSERT_EQ(objects.size(), 1u);
  EXPECT_EQ(objects[0]["name"], "corpusd_tokens_total");
  EXPECT_EQ(objects[0]["samples"][0]["labels"]["tier"], "host");
  EXPECT_EQ(objects[0]["samples"][0]["value"], 5400);
  const auto first = nlohmann::json::parse(Run({"stats", "first", "-o", "json"}).out);
  EXPECT_EQ(first[0]["samples"][0]["count"], 60);
  EXPECT_EQ(first[0]["samples"][0]["buckets"][1]["le"], "+Inf");
  EXPECT_THAT(Run({"stats", "-o", "name"}).out, HasSubstr("corpusd_connections\n"));
  EXPECT_EQ(Run({"stats", "nonsense"}).exit_code, 3);
}

TEST_F(CtlStats, TopOncePrintsAndEnds) {
  const CtlRun run = Run({"top", "--once", "--interval", "100ms"});
  EXPECT_EQ(run.exit_code, 0) << run.err;
  EXPECT_THAT(run.out, AllOf(StartsWith("corpusd 9.9"), HasSubstr("filings"), HasSubstr("old"),
                             Not(HasSubstr("\x1b"))));
  const auto object = nlohmann::json::parse(Run({"top", "-o", "json", "--interval", "100ms"}).out);
  EXPECT_EQ(object["jobs"].size(), 1u);
  EXPECT_EQ(object["tiers"][0]["used_bytes"], 1024);
  EXPECT_EQ(object["corpora"].size(), 2u);
  EXPECT_EQ(object["rates"]["questions_per_s"], 0);
  EXPECT_EQ(Run({"top", "--interval", "soon"}).exit_code, 2);
}

}  // namespace
}  // namespace corpusd::ctl
