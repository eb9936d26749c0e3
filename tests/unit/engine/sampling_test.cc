// Sampling, each part against distributions written by hand.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "engine/decode/sampler.h"

namespace corpusd {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pointwise;

// Logits of a softmax with these probabilities.
std::vector<float> LogitsOf(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)) + 3);
  return logits;
}

const std::vector<double> kFour = {0.3, 0.4, 0.1, 0.2};

std::vector<Candidate> Weighed(const std::vector<float>& logits, double temperature = 1) {
  std::vector<Candidate> candidates;
  WeighAll(logits, temperature, &candidates);
  return candidates;
}

// Probabilities by id of what the candidates are.
std::vector<double> DistributionOf(const std::vector<Candidate>& candidates, size_t vocabulary) {
  std::vector<double> distribution(vocabulary, 0.0);
  double sum = 0;
  for (const Candidate& c : candidates) sum += c.weight;
  for (const Candidate& c : candidates) distribution[c.id] += c.weight / sum;
  return distribution;
}

std::vector<TokenId> IdsOf(const std::vector<Candidate>& candidates) {
  std::vector<TokenId> ids;
  for (const Candidate& c : candidates) ids.push_back(c.id);
  return ids;
}

// Shares of many draws.
std::vector<double> SharesOf(const SamplingOptions& options, const std::vector<float>& logits) {
  constexpr int kDraws = 40000;
  Sampler sampler(options);
  std::vector<double> shares(logits.size(), 0.0);
  for (int i = 0; i < kDraws; ++i) shares[sampler.Next(logits)] += 1.0 / kDraws;
  return shares;
}

// Five standard deviations of a share of 40,000 draws.
constexpr double kDrawError = 0.0125;

TEST(Candidates, TemperatureIsAPowerOfTheProbabilities) {
  const auto logits = LogitsOf(kFour);
  EXPECT_THAT(DistributionOf(Weighed(logits), 4), Pointwise(DoubleNear(1e-6), kFour));
  // 0.09, 0.16, 0.01, 0.04 of 0.30
  EXPECT_THAT(DistributionOf(Weighed(logits, 0.5), 4),
              Pointwise(DoubleNear(1e-6), {0.3, 0.533333, 0.033333, 0.133333}));
  // Roots 0.547723, 0.632456, 0.316228, 0.447214 of 1.943620
  EXPECT_THAT(DistributionOf(Weighed(logits, 2), 4),
              Pointwise(DoubleNear(1e-5), {0.281805, 0.325401, 0.162701, 0.230093}));
  // So cold that all others' weights are 0.
  EXPECT_THAT(DistributionOf(Weighed(logits, 1e-300), 4), ElementsAre(0, 1, 0, 0));
}

TEST(Candidates, TopKKeepsTheLargestAndOfEqualOnesTheLowerIds) {
  auto candidates = Weighed(LogitsOf(kFour));
  KeepTopK(2, &candidates);
  EXPECT_THAT(DistributionOf(candidates, 4),
              Pointwise(DoubleNear(1e-6), {3.0 / 7, 4.0 / 7, 0.0, 0.0}));
  auto equal = Weighed({1, 5, 5, 5, 0, 5});
  KeepTopK(3, &equal);
  EXPECT_THAT(IdsOf(equal), ElementsAre(1, 2, 3));
  for (const uint32_t k : {0u, 4u, 1000u}) {
    auto all = Weighed(LogitsOf(kFour));
    KeepTopK(k, &all);
    EXPECT_EQ(all.size(), 4u) << k;
  }
}

TEST(Candidates, TopPKeepsTheFewestThatReachIt) {
  const std::map<double, std::vector<TokenId>> cases = {
      {1e-9, {1}}, {0.39, {1}}, {0.45, {1, 0}}, {0.75, {1, 0, 3}}, {0.95, {1, 0, 3, 2}}};
  for (const auto& [p, ids] : cases) {
    auto candidates = Weighed(LogitsOf(kFour));
    KeepTopP(p, &candidates);
    EXPECT_EQ(IdsOf(candidates), ids) << p;
  }
  auto all = Weighed(LogitsOf(kFour));
  KeepTopP(1, &all);
  EXPECT_THAT(IdsOf(all), ElementsAre(0, 1, 2, 3));
  // More than are sorted at first: of a thousand equal ones the lower ids.
  auto equal = Weighed(std::vector<float>(1000, 0.5f));
  KeepTopP(0.5, &equal);
  ASSERT_EQ(equal.size(), 500u);
  for (TokenId i = 0; i < 500; ++i) EXPECT_EQ(equal[i].id, i);
}

TEST(Candidates, MinPIsAShareOfTheLikeliest) {
  const std::map<double, std::vector<TokenId>> cases = {
      {0, {0, 1, 2, 3}}, {0.24, {0, 1, 2, 3}}, {0.3, {0, 1, 3}}, {0.6, {0, 1}}, {1, {1}}};
  for (const auto& [p, ids] : cases) {
    auto candidates = Weighed(LogitsOf(kFour));
    KeepMinP(p, &candidates);
    EXPECT_EQ(IdsOf(candidates), ids) << p;
  }
}

TEST(Candidates, ADrawDividesTheUnitInterval) {
  const std::vector<Candidate> candidates = {{0, 7, 1.0}, {0, 3, 0.0}, {0, 9, 3.0}};
  EXPECT_EQ(Draw(0, candidates), 7u);
  EXPECT_EQ(Draw(0.2499, candidates), 7u);
  EXPECT_EQ(Draw(0.25, candidates), 9u);
  EXPECT_EQ(Draw(std::nextafter(1.0, 0.0), candidates), 9u);
}

TEST(TokenPenalties, RepetitionShrinksBothSigns) {
  SamplingOptions options;
  options.repetition_penalty = 2;
  TokenPenalties penalties(options, std::vector<TokenId>{0, 1, 0});  // once, however often
  penalties.Add(3);
  std::vector<float> logits = {2, -1, 1, 0.5, 4};
  penalties.Apply(logits);
  EXPECT_THAT(logits, ElementsAre(1, -2, 1, 0.25, 4));
}

TEST(TokenPenalties, TheWindowForgets) {
  SamplingOptions options;
  options.repetition_penalty = 2;
  options.repetition_window = 3;
  TokenPenalties penalties(options, std::vector<TokenId>{4, 0, 1, 0});  // 4 is not in it
  penalties.Add(2);                                                     // 0 is still in it, 1, too
  std::vector<float> logits(5, 8);
  penalties.Apply(logits);
  EXPECT_THAT(logits, ElementsAre(4, 4, 4, 8, 8));
  penalties.Add(2);  // now 0 2 2
  logits.assign(5, 8);
  penalties.Apply(logits);
  EXPECT_THAT(logits, ElementsAre(4, 8, 4, 8, 8));
  penalties.Add(3);  // 2 2 3
  logits.assign(5, 8);
  penalties.Apply(logits);
  EXPECT_THAT(logits, ElementsAre(8, 8, 4, 4, 8));
}

TEST(TokenPenalties, PresenceAndFrequencyCountTheAnswerAlone) {
  SamplingOptions options;
  options.presence_penalty = 0.5;
  options.frequency_penalty = 0.25;
  TokenPenalties penalties(options, std::vector<TokenId>{0, 0});
  EXPECT_TRUE(penalties.active());
  for (const TokenId id : {1, 2, 2, 2, 77}) penalties.Add(id);  // 77: outside of the vocabulary
  std::vector<float> logits(4, 1);
  penalties.Apply(logits);
  EXPECT_THAT(logits, ElementsAre(1, 0.25, -0.25, 1));
  options.presence_penalty = -0.5;
  options.frequency_penalty = 0;
  TokenPenalties rewards(options, {});
  rewards.Add(1);
  logits.assign(4, 1);
  rewards.Apply(logits);
  EXPECT_THAT(logits, ElementsAre(1, 1.5, 1, 1));
  EXPECT_FALSE(TokenPenalties({}, {}).active());
}

TEST(Sampler, AtTemperature0TheLargestPenalizedLogit) {
  SamplingOptions options;
  options.top_k = 7;
  options.top_p = 0.1;
  options.seed = 99;
  EXPECT_EQ(Sampler(options).Next(std::vector<float>{1, 3, 2, 3}), 1u);  // ties to the lower id
  options.presence_penalty = 0.6;
  Sampler sampler(options);
  std::vector<TokenId> ids;
  for (int i = 0; i < 4; ++i) ids.push_back(sampler.Next(std::vector<float>{2.5, 3, 1.5}));
  // 3.0; then 2.5 against 2.4; then 2.4 against 1.9; one cannot be penalized twice for presence.
  EXPECT_THAT(ids, ElementsAre(1, 0, 1, 1));
}

TEST(Sampler, DrawsWhatTheOptionsLeave) {
  SamplingOptions options;
  options.temperature = 1;
  EXPECT_THAT(SharesOf(options, LogitsOf(kFour)), Pointwise(DoubleNear(kDrawError), kFour));
  options.min_p = 0.3;  // leaves 0.3, 0.4 and 0.2
  EXPECT_THAT(SharesOf(options, LogitsOf(kFour)),
              Pointwise(DoubleNear(kDrawError), {3.0 / 9, 4.0 / 9, 0.0, 2.0 / 9}));
}

// The nucleus is that of the tempered probabilities: at temperature 10 they are nearly equal, and
// three of them are needed for 0.6; of the others two would do.
TEST(Sampler, TemperatureComesBeforeTopP) {
  SamplingOptions options;
  options.temperature = 10;
  options.top_p = 0.6;
  const auto shares = SharesOf(options, LogitsOf(kFour));
  EXPECT_GT(shares[3], 0.3);
  EXPECT_EQ(shares[2], 0);
}

// Of the three likeliest two have 7/9, more than 0.75; of all four they have 0.7.
TEST(Sampler, TopKComesBeforeTopP) {
  SamplingOptions options;
  options.temperature = 1;
  options.top_k = 3;
  options.top_p = 0.75;
  EXPECT_THAT(SharesOf(options, LogitsOf(kFour)),
              Pointwise(DoubleNear(kDrawError), {3.0 / 7, 4.0 / 7, 0.0, 0.0}));
}

// Untempered, 0.2 is half of 0.4; squared, it is a quarter.
TEST(Sampler, TemperatureComesBeforeMinP) {
  SamplingOptions options;
  options.temperature = 0.5;
  options.min_p = 0.4;
  EXPECT_EQ(SharesOf(options, LogitsOf(kFour))[3], 0);
}

TEST(Sampler, IsAFunctionOfItsSeed) {
  const auto draws = [](uint64_t seed) {
    SamplingOptions options;
    options.temperature = 1;
    options.seed = seed;
    Sampler sampler(options);
    std::vector<TokenId> ids;
    for (int i = 0; i < 64; ++i) ids.push_back(sampler.Next(LogitsOf(kFour)));
    return ids;
  };
  EXPECT_EQ(draws(5), draws(5));
  EXPECT_NE(draws(5), draws(6));
  EXPECT_EQ(SeedOfAnswer(5, 0), 5u);
  EXPECT_NE(draws(SeedOfAnswer(5, 1)), draws(5));
  EXPECT_NE(draws(SeedOfAnswer(5, 1)), draws(SeedOfAnswer(5, 2)));
}

TEST(AnswerOptions, LimitsAreCheckedByName) {
  EXPECT_TRUE(CheckAnswerOptions({}).ok());
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinite = std::numeric_limits<double>::infinity();
  const auto refused = [](const char* name, const auto& change) {
    AnswerOptions options;
    change(options);
    const Status status = CheckAnswerOptions(options);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << name;
    EXPECT_TRUE(status.message().starts_with(std::string(name) + " must ")) << status.message();
  };
  using Number = double SamplingOptions::*;
  const std::vector<std::tuple<const char*, Number, std::vector<double>>> numbers = {
      {"temperature", &SamplingOptions::temperature, {-0.1, 101, nan, infinite}},
      {"top_p", &SamplingOptions::top_p, {0, -1, 1.01, nan}},
      {"min_p", &SamplingOptions::min_p, {-0.01, 1.01, nan}},
      {"repetition_penalty", &SamplingOptions::repetition_penalty, {0, -1, 10.1, nan, infinite}},
      {"presence_penalty", &SamplingOptions::presence_penalty, {-2.1, 2.1, nan}},
      {"frequency_penalty", &SamplingOptions::frequency_penalty, {-2.1, 2.1, nan}}};
  for (const auto& [name, member, values] : numbers) {
    for (const double value : values) {
      refused(name, [&, m = member](AnswerOptions& o) { o.sampling.*m = value; });
    }
  }
  refused("repetition_window", [](AnswerOptions& o) { o.sampling.repetition_window = 65537; });
  refused("n", [](AnswerOptions& o) { o.count = 0; });
  refused("n", [](AnswerOptions& o) { o.count = 17; });
  refused("top_logprobs", [](AnswerOptions& o) { o.top_logprobs = 21; });
  refused("stop", [](AnswerOptions& o) { o.stop = {"a", ""}; });
  refused("stop", [](AnswerOptions& o) { o.stop = {std::string(257, 'a')}; });
  refused("stop", [](AnswerOptions& o) { o.stop.assign(17, "a"); });
  refused("stop", [](AnswerOptions& o) { o.stop = {"\xa4"}; });
  refused("stop", [](AnswerOptions& o) { o.stop = {"\xc3"}; });
  AnswerOptions options;
  options.stop = {"\xc3\xa4"};
  EXPECT_TRUE(CheckAnswerOptions(options).ok());
}

}  // namespace
}  // namespace corpusd
