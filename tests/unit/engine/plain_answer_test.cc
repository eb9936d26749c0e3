// Answers without a corpus, of conversations and of raw texts, and what is kept of their prompts.
#include <gmock/gmock.h>

#include "tests/unit/engine/engine_fixture.h"

namespace corpusd {
namespace {

using ::testing::HasSubstr;

class PlainAnswerTest : public EngineFixture {
 protected:
  void SetUp() override {
    options_.prompt_cache_bytes = uint64_t{64} << 20;
    options_.tenant_salt = "secret";
    EngineFixture::SetUp();
  }
  static QuestionRequest Plain(const std::string& question) {
    QuestionRequest request;
    request.question = question;
    request.max_tokens = 12;
    return request;
  }
  QuestionReport Answered(const QuestionRequest& request) {
    auto report = engine_->Ask(request, [](std::string_view) { return true; }, {});
    EXPECT_TRUE(report.ok()) << report.status().ToString();
    return report.ok() ? *report : QuestionReport();
  }
};

TEST_F(PlainAnswerTest, TheModelAnswersByItself) {
  const QuestionReport report = Answered(Plain("why?"));
  EXPECT_GT(report.prompt_tokens, 4u);
  EXPECT_EQ(report.cached_tokens, 0u);
  EXPECT_GT(report.completion_tokens, 0u);
  QuestionRequest conversation = Plain("why?");
  conversation.messages = {{"user", "one"}, {"assistant", "two"}, {"user", "why?"}};
  EXPECT_GT(Answered(conversation).prompt_tokens, report.prompt_tokens);
  QuestionRequest raw = Plain("why?");
  raw.raw = true;
  EXPECT_EQ(Answered(raw).prompt_tokens, engine_->Tokenize("why?", false).size());
}

TEST_F(PlainAnswerTest, OverACorpusOneMessageIsTheQuestion) {
  Ingest("a", Prose(200));
  QuestionRequest question = Plain("why?");
  question.corpus = "a";
  const QuestionReport alone = Answered(question);
  question.messages = {{"user", "why?"}};
  EXPECT_EQ(Answered(question).answer, alone.answer);
  EXPECT_EQ(Answered(question).prompt_tokens, alone.prompt_tokens);
}

TEST_F(PlainAnswerTest, TooLongPromptsAndAnswersAreRefused) {
  const auto refusal = [&](const QuestionRequest& request) {
    return engine_->Ask(request, [](std::string_view) { return true; }, {}).status();
  };
  EXPECT_THAT(refusal(Plain(Prose(4000))).message(), HasSubstr("context is 4096"));
  QuestionRequest request = Plain("why?");
  request.max_tokens = 4096;
  EXPECT_THAT(refusal(request).message(), HasSubstr("max_tokens must be at most"));
  request.max_tokens = 0;
  request.max_tokens_if_room = 5;
  EXPECT_LE(Answered(request).completion_tokens, 5u);
  request.question.clear();
  request.raw = true;
  EXPECT_EQ(refusal(request).code(), StatusCode::kInvalidArgument);
}

// Every bit of an answer's probabilities, too.
void ExpectSame(const QuestionReport& one, const QuestionReport& other) {
  EXPECT_EQ(one.answer, other.answer);
  const auto &left = one.answers[0].logprobs, &right = other.answers[0].logprobs;
  ASSERT_EQ(left.size(), right.size());
  ASSERT_FALSE(left.empty());
  for (size_t i = 0; i < left.size(); ++i) EXPECT_EQ(left[i].logprob, right[i].logprob) << i;
}

class KeptPromptTest : public PlainAnswerTest {
 protected:
  static QuestionRequest Long(const std::string& question) {
    QuestionRequest request = Plain(Prose(300) + question);
    request.answers.top_logprobs = 1;
    return request;
  }
};

TEST_F(KeptPromptTest, LikePromptsComputeTheirLikePartOnceAndAnswerTheSame) {
  const QuestionReport cold = Answered(Long("first?"));
  ASSERT_GT(cold.prompt_tokens, 1024u);
  EXPECT_EQ(cold.cached_tokens, 0u);
  EXPECT_EQ(cold.host_bytes, 0u);
  const QuestionReport warm = Answered(Long("first?"));
  EXPECT_EQ(warm.cached_tokens, (cold.prompt_tokens - 1) / 512 * 512);
  EXPECT_GT(warm.host_bytes, 0u);
  ExpectSame(warm, cold);
  const QuestionReport other = Answered(Long("second, longer?"));
  EXPECT_GE(other.cached_tokens, 1024u);
  EXPECT_EQ(Answered(Plain("x" + Prose(300))).cached_tokens, 0u);
  const PromptCacheUsage usage = engine_->prompt_cache();
  EXPECT_EQ(usage.found_tokens, warm.cached_tokens + other.cached_tokens);
  EXPECT_LE(usage.used_bytes, usage.capacity_bytes);
  options_.prompt_cache_bytes = 0;
  Restart();
  ExpectSame(Answered(Long("second, longer?")), other);
  EXPECT_EQ(Answered(Long("second, longer?")).cached_tokens, 0u);
}

TEST_F(KeptPromptTest, ConversationsGoOnFromWhatTheyHadSaid) {
  QuestionRequest request = Long("one?");
  request.messages = {{"system", Prose(300)}, {"user", "one?"}};
  const QuestionReport first = Answered(request);
  request.messages.push_back({"assistant", first.answer});
  request.messages.push_back({"user", "two?"});
  EXPECT_GE(Answered(request).cached_tokens, 1024u);
}

TEST_F(KeptPromptTest, NobodyFindsWhatAnotherTenantOrSaltAsked) {
  const uint64_t found = (Answered(Long("first?")).prompt_tokens - 1) / 512 * 512;
  QuestionRequest stranger = Long("first?");
  stranger.tenant = "acme";
  EXPECT_EQ(Answered(stranger).cached_tokens, 0u);
  EXPECT_EQ(Answered(stranger).cached_tokens, found);
  stranger.cache_salt = "mine";
  EXPECT_EQ(Answered(stranger).cached_tokens, 0u);
  stranger.tenant = "globex";
  EXPECT_EQ(Answered(stranger).cached_tokens, 0u);
  // Not even one who is called as another's salt is.
  stranger.tenant = "";
  stranger.cache_salt = "acme";
  EXPECT_EQ(Answered(stranger).cached_tokens, 0u);
  // Who wants none of it neither finds nor leaves anything.
  QuestionRequest fresh = Long("first?");
  fresh.no_cache = true;
  EXPECT_EQ(Answered(fresh).cached_tokens, 0u);
  fresh.tenant = "initech";
  Answered(fresh);
  fresh.no_cache = false;
  EXPECT_EQ(Answered(fresh).cached_tokens, 0u);
}

TEST_F(KeptPromptTest, APromptTellsHowFarItIsAndACancelledOneKeepsThat) {
  std::vector<PromptProgress> told;
  std::stop_source stop;
  QuestionRequest request = Long("first?");
  request.on_prompt = [&](const PromptProgress& progress) {
    told.push_back(progress);
    if (progress.done_tokens == 512) stop.request_stop();
  };
  const auto cancelled = engine_->Ask(
      request, [](std::string_view) { return true; }, stop.get_token());
  ASSERT_TRUE(cancelled.ok()) << cancelled.status().ToString();
  EXPECT_EQ(cancelled->finish_reason, "cancelled");
  ASSERT_EQ(told.size(), 2u);
  EXPECT_EQ(told[0].done_tokens, 0u);
  EXPECT_EQ(told[1].total_tokens, cancelled->prompt_tokens);
  told.clear();
  const QuestionReport report = Answered(request);
  EXPECT_EQ(report.cached_tokens, 512u);
  ASSERT_GE(told.size(), 3u);
  EXPECT_EQ(told.front().done_tokens, 512u);
  EXPECT_EQ(told.front().cached_tokens, 512u);
  EXPECT_EQ(told.back().done_tokens, report.prompt_tokens);
  EXPECT_GE(told.back().ms, told.front().ms);
  // Over a corpus the corpus counts as there.
  Ingest("a", Prose(200));
  request = Plain("why?");
  request.corpus = "a";
  request.on_prompt = [&](const PromptProgress& progress) { told.push_back(progress); };
  told.clear();
  const QuestionReport over = Answered(request);
  ASSERT_EQ(told.size(), 2u);
  EXPECT_EQ(told[0].done_tokens, over.cached_tokens);
  EXPECT_EQ(told[1].done_tokens, over.prompt_tokens);
}

}  // namespace
}  // namespace corpusd
