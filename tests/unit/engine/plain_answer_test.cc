// Answers without a corpus, of conversations and of raw texts, and what of a prompt is kept for the
// next one like it.
#include <gmock/gmock.h>

#include "engine/decode/prompt_cache.h"
#include "tests/unit/engine/engine_fixture.h"

namespace corpusd {
namespace {

using ::testing::HasSubstr;

class PlainAnswerTest : public EngineFixture {
 protected:
  void SetUp() override {
    options_.prompt_cache_bytes = uint64_t{64} << 20;
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

TEST_F(PlainAnswerTest, LikePromptsComputeTheirLikePartOnceAndAnswerTheSame) {
  const std::string shared = Prose(300);
  const QuestionReport cold = Answered(Plain(shared + "first?"));
  ASSERT_GT(cold.prompt_tokens, 1024u);
  EXPECT_EQ(cold.cached_tokens, 0u);
  const QuestionReport warm = Answered(Plain(shared + "first?"));
  EXPECT_EQ(warm.cached_tokens, (cold.prompt_tokens - 1) / 512 * 512);
  EXPECT_EQ(warm.answer, cold.answer);
  const QuestionReport other = Answered(Plain(shared + "second, longer?"));
  EXPECT_GE(other.cached_tokens, 1024u);
  QuestionRequest stranger = Plain(shared + "first?");
  stranger.cache_salt = "somebody else";
  EXPECT_EQ(Answered(stranger).cached_tokens, 0u);
  EXPECT_EQ(Answered(Plain("x" + shared)).cached_tokens, 0u);
  options_.prompt_cache_bytes = 0;
  Restart();
  EXPECT_EQ(Answered(Plain(shared + "second, longer?")).answer, other.answer);
  EXPECT_EQ(Answered(Plain(shared + "second, longer?")).cached_tokens, 0u);
}

class Page : public Buffer {
 public:
  explicit Page(uint64_t bytes) : bytes_(bytes) {}
  std::byte* data() override { return bytes_.data(); }
  uint64_t bytes() const override { return bytes_.size(); }

 private:
  std::vector<std::byte> bytes_;
};

KvFormat SmallFormat() {
  KvFormat format;
  format.layers = 1;
  format.kv_heads = 1;
  format.head_dim = 64;
  return format;
}

// A sequence over a prompt of so many pages.
std::unique_ptr<KvSequence> Sequence(const KvFormat& format, size_t pages) {
  auto kv = std::make_unique<KvSequence>(format, format);
  for (size_t i = 0; i < pages; ++i) kv->AddOwn(std::make_shared<Page>(format.BlockBytes()));
  return kv;
}

TEST(PromptCache, KeepsWithinItsBytesAndDropsTailsFirst) {
  const KvFormat format = SmallFormat();
  const uint64_t run_bytes = 4 * format.BlockBytes();
  PromptCache cache(3 * run_bytes, 512);
  std::vector<TokenId> first(1100, 1), second(600, 2), longer(5000, 3);
  const auto found = [&](const std::vector<TokenId>& prompt) {
    KvSequence kv(format, format);
    const uint64_t tokens = cache.Find("", prompt, &kv);
    EXPECT_EQ(kv.tokens(), tokens);
    return tokens;
  };
  cache.Keep("", first, *Sequence(format, 9));
  EXPECT_EQ(cache.bytes(), 2 * run_bytes);
  cache.Keep("", second, *Sequence(format, 5));
  EXPECT_EQ(found(first), 1024u);
  EXPECT_EQ(found(second), 512u);
  // Of the first prompt, used longest ago, the tail goes.
  std::vector<TokenId> third(600, 4);
  cache.Keep("", third, *Sequence(format, 5));
  EXPECT_EQ(cache.bytes(), 3 * run_bytes);
  EXPECT_EQ(found(first), 512u);
  EXPECT_EQ(found(third), 512u);
  // Never all of a prompt, and of one that is too long for the cache its beginning.
  EXPECT_EQ(found(std::vector<TokenId>(512, 4)), 0u);
  cache.Keep("", longer, *Sequence(format, 40));
  EXPECT_EQ(found(longer), 3u * 512);
  EXPECT_EQ(cache.bytes(), 3 * run_bytes);
}

}  // namespace
}  // namespace corpusd
