// Answers without a corpus, of conversations and of raw texts.
#include <gmock/gmock.h>

#include "tests/unit/engine/engine_fixture.h"

namespace corpusd {
namespace {

using ::testing::HasSubstr;

class PlainAnswerTest : public EngineFixture {
 protected:
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

}  // namespace
}  // namespace corpusd
