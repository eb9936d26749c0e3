// Answers as clients want them, through the engine: several of one question, stop strings,
// likelihoods, limits; of exact and of segmented corpora, alone and beside others.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <thread>

#include "engine/decode/sampler.h"
#include "engine/decode/utf8_stream.h"
#include "tests/unit/engine/segmented_fixture.h"

namespace corpusd {
namespace {

using ::testing::HasSubstr;

class AnswersTest : public SegmentedFixture {
 protected:
  void SetUp() override {
    model_.head_dim = 64;
    SegmentedFixture::SetUp();
    Ingest("exact", Prose(200), "bf16");
    IngestSegmented("segmented", {{"a.txt", Prose(120, 2)}, {"b.txt", Prose(90, 3)}});
  }

  static QuestionRequest Question(const std::string& corpus) {
    QuestionRequest request;
    request.corpus = corpus;
    request.question = "why?";
    request.max_tokens = 24;
    return request;
  }
  static QuestionRequest Sampled(const std::string& corpus, uint64_t seed) {
    QuestionRequest request = Question(corpus);
    request.answers.sampling.temperature = 1.2;
    request.answers.sampling.top_p = 0.95;
    request.answers.sampling.seed = seed;
    return request;
  }
  QuestionReport Answered(const QuestionRequest& request) {
    auto report = engine_->Ask(request, [](std::string_view) { return true; }, {});
    EXPECT_TRUE(report.ok()) << report.status().ToString();
    QuestionReport none;
    none.answers.resize(request.answers.count);
    return report.ok() ? *report : none;
  }
};

TEST_F(AnswersTest, SeveralAnswersAreThoseOfTheirSeedsAlone) {
  for (const std::string corpus : {"exact", "segmented"}) {
    const QuestionReport one = Answered(Sampled(corpus, 7));
    QuestionRequest several = Sampled(corpus, 7);
    several.answers.count = 5;
    std::vector<std::string> streamed(5);
    const auto report = engine_->Ask(several,
                                     [&](const AnswerDelta& delta) {
                                       streamed[delta.choice] += delta.text;
                                       return true;
                                     },
                                     {});
    ASSERT_TRUE(report.ok()) << report.status().ToString();
    ASSERT_EQ(report->answers.size(), 5u);
    uint64_t tokens = 0;
    for (uint32_t i = 0; i < 5; ++i) {
      const QuestionReport alone = Answered(Sampled(corpus, SeedOfAnswer(7, i)));
      EXPECT_EQ(report->answers[i].text, alone.answer) << corpus << i;
      EXPECT_EQ(streamed[i], alone.answer) << corpus << i;
      tokens += alone.completion_tokens;
    }
    EXPECT_NE(report->answers[0].text, report->answers[1].text);
    EXPECT_EQ(report->completion_tokens, tokens);
    // The corpus and the question are read and computed once.
    EXPECT_EQ(report->prompt_tokens, one.prompt_tokens);
    EXPECT_EQ(report->host_bytes, one.host_bytes);
    EXPECT_EQ(report->recomputed_tokens, one.recomputed_tokens);
    EXPECT_EQ(report->citations.size(), one.citations.size());
  }
}

// Where the last page of the prompt is full, forks share it; one token more, and they copy it.
TEST_F(AnswersTest, ForksAtTheBorderOfAPageSayTheSame) {
  QuestionRequest request = Sampled("exact", 3);
  const uint64_t corpus = store_->GetCorpus("exact")->tokens;
  int borders = 0;
  request.question = "why";
  for (int i = 0; i < 140 && borders < 2; ++i) {
    request.question += "!";
    request.max_tokens = 1;
    request.answers.count = 1;
    const uint64_t rest = (Answered(request).prompt_tokens - corpus) % kBlockTokens;
    if (rest > 1) continue;
    ++borders;
    request.max_tokens = 8;
    request.answers.count = 3;
    const QuestionReport several = Answered(request);
    request.answers.count = 1;
    for (uint32_t k = 0; k < 3; ++k) {
      request.answers.sampling.seed = SeedOfAnswer(3, k);
      EXPECT_EQ(several.answers[k].text, Answered(request).answer) << rest << " " << k;
    }
    request.answers.sampling.seed = 3;
  }
  EXPECT_EQ(borders, 2);
}

TEST_F(AnswersTest, AStopStringEndsEveryPathsAnswer) {
  for (const std::string corpus : {"exact", "segmented", "recomputed"}) {
    QuestionRequest request = Question(corpus == "recomputed" ? "exact" : corpus);
    request.no_cache = corpus == "recomputed";
    const std::string whole = Answered(request).answer;
    const size_t at = whole.size() / 2;
    std::string stop = whole.substr(at, 3);
    // The bytes of a test may be cut anywhere, a stop string may not.
    if (stop.empty() || Utf8Stream().Append(stop) != stop) stop = whole.substr(0, 1);
    request.answers.stop = {"never said", stop};
    std::string streamed;
    const auto report = engine_->Ask(request,
                                     [&](std::string_view text) {
                                       streamed += text;
                                       return true;
                                     },
                                     {});
    ASSERT_TRUE(report.ok()) << report.status().ToString();
    EXPECT_EQ(report->answer, whole.substr(0, whole.find(stop))) << corpus;
    EXPECT_EQ(streamed, report->answer);
    EXPECT_EQ(report->finish_reason, "stop");
    EXPECT_EQ(report->answers[0].stop, stop);
    EXPECT_LT(report->completion_tokens, 24u);
  }
}

TEST_F(AnswersTest, LikelihoodsAreOfTheModelAndSumToOne) {
  for (const std::string corpus : {"exact", "segmented"}) {
    QuestionRequest request = Question(corpus);
    request.answers.top_logprobs = 20;
    request.answers.count = 2;
    const QuestionReport report = Answered(request);
    for (const GeneratedAnswer& answer : report.answers) {
      ASSERT_EQ(answer.logprobs.size(), answer.tokens);
      std::string bytes;
      for (const TokenLogprob& token : answer.logprobs) {
        bytes += token.bytes;
        ASSERT_EQ(token.top.size(), 20u);
        EXPECT_EQ(token.top.front().id, token.id) << "the likeliest was taken";
        EXPECT_EQ(token.top.front().logprob, token.logprob);
        double sum = 0;
        for (size_t i = 0; i < token.top.size(); ++i) {
          EXPECT_LE(token.top[i].logprob, token.top[i == 0 ? 0 : i - 1].logprob);
          sum += std::exp(token.top[i].logprob);
        }
        EXPECT_LE(sum, 1 + 1e-9);
        EXPECT_GT(sum, 0);
      }
      Utf8Stream utf8;
      EXPECT_EQ(utf8.Append(bytes) + utf8.Finish(), answer.text);
    }
    // Options of sampling do not change how likely the model took the first token to be.
    request = Sampled(corpus, 5);
    request.answers.sampling.temperature = 50;
    request.answers.top_logprobs = 20;
    const TokenLogprob first = Answered(request).answers[0].logprobs.front();
    EXPECT_EQ(first.top.front().logprob, report.answers[0].logprobs.front().logprob);
    request.answers.top_logprobs.reset();
    EXPECT_TRUE(Answered(request).answers[0].logprobs.empty());
  }
}

TEST_F(AnswersTest, PenaltiesChangeWhatIsSaidAgain) {
  QuestionRequest request = Question("exact");
  request.max_tokens = 60;
  const auto repeats = [&] {
    request.answers.top_logprobs = 0;
    std::vector<TokenId> ids;
    const QuestionReport report = Answered(request);
    for (const auto& token : report.answers[0].logprobs) ids.push_back(token.id);
    const size_t all = ids.size();
    std::sort(ids.begin(), ids.end());
    ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
    return all - ids.size();
  };
  const size_t plain = repeats();
  ASSERT_GT(plain, 2u) << "a model that repeats itself is wanted";
  request.answers.sampling.frequency_penalty = 2;
  request.answers.sampling.presence_penalty = 2;
  EXPECT_LT(repeats(), plain);
  request.answers.sampling.frequency_penalty = request.answers.sampling.presence_penalty = 0;
  request.answers.sampling.repetition_penalty = 10;
  EXPECT_LT(repeats(), plain);
}

TEST_F(AnswersTest, TooManyTokensAreRefusedWithTheLimit) {
  for (const std::string corpus : {"exact", "segmented"}) {
    QuestionRequest request = Question(corpus);
    request.max_tokens = 4096;
    const auto refused = engine_->Ask(request, [](std::string_view) { return true; }, {});
    ASSERT_EQ(refused.status().code(), StatusCode::kInvalidArgument);
    const std::string text(refused.status().message());
    EXPECT_THAT(text, HasSubstr("not 4096: the model's context of 4096 tokens has"));
    ASSERT_TRUE(text.starts_with("max_tokens must be at most ")) << text;
    // The limit it names is taken.
    request.max_tokens = static_cast<uint32_t>(std::stoul(text.substr(27)));
    const auto most = engine_->Ask(request, [](std::string_view) { return false; }, {});
    EXPECT_TRUE(most.ok()) << most.status().ToString();
    request.max_tokens = 0;
    EXPECT_LE(Answered(request).completion_tokens, kAnswerTokensDefault);
    request.answers.sampling.top_p = 2;
    EXPECT_EQ(engine_->Ask(request, [](std::string_view) { return true; }, {}).status().code(),
              StatusCode::kInvalidArgument);
  }
}

// At temperature 0 an answer is the same bytes whatever is computed at the same time: answers of
// other options, of both kinds of corpora, several at once, stopped and abandoned ones, a prefill.
TEST_F(AnswersTest, AtTemperature0AnswersDoNotDependOnWhatElseRuns) {
  const std::vector<std::string> corpora = {"exact", "segmented"};
  std::vector<QuestionReport> alone;
  for (const std::string& corpus : corpora) {
    QuestionRequest request = Question(corpus);
    request.answers.top_logprobs = 3;
    alone.push_back(Answered(request));
  }
  ASSERT_TRUE(Create("beside", Prose(500, 9), "bf16").ok());
  std::atomic<bool> over{false};
  std::vector<std::jthread> others;
  others.emplace_back([&] {
    const Status status = engine_->Prefill("beside", [](const PrefillProgress&) {}, {});
    EXPECT_TRUE(status.ok()) << status.ToString();
  });
  for (int t = 0; t < 4; ++t) {
    others.emplace_back([&, t] {
      for (uint64_t i = 0; !over; ++i) {
        QuestionRequest request = Sampled(corpora[(t + i) % 2], 100 * t + i);
        request.answers.count = 1 + (t + i) % 4;
        request.answers.sampling.top_k = t % 2 == 0 ? 40 : 0;
        request.answers.sampling.repetition_penalty = 1.2;
        request.answers.stop = {"e"};
        int pieces = 0;
        const auto report =
            engine_->Ask(request, [&](std::string_view) { return t != 3 || ++pieces < 3; }, {});
        EXPECT_TRUE(report.ok()) << report.status().ToString();
      }
    });
  }
  for (int round = 0; round < 6; ++round) {
    for (size_t c = 0; c < corpora.size(); ++c) {
      QuestionRequest request = Question(corpora[c]);
      request.answers.top_logprobs = 3;
      request.answers.count = 1 + round % 3;
      const QuestionReport report = Answered(request);
      for (const GeneratedAnswer& answer : report.answers) {
        EXPECT_EQ(answer.text, alone[c].answer) << corpora[c] << " round " << round;
        ASSERT_EQ(answer.logprobs.size(), alone[c].answers[0].logprobs.size());
        for (size_t i = 0; i < answer.logprobs.size(); ++i) {
          EXPECT_EQ(answer.logprobs[i].logprob, alone[c].answers[0].logprobs[i].logprob);
          EXPECT_EQ(answer.logprobs[i].top[2].logprob,
                    alone[c].answers[0].logprobs[i].top[2].logprob);
        }
      }
    }
  }
  over = true;
}

}  // namespace
}  // namespace corpusd
