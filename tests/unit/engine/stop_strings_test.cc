// The text of an answer on its way out: stop strings over any borders, whole characters, and the
// likelihoods of its tokens.
#include <gtest/gtest.h>

#include "engine/decode/answer_writer.h"
#include "store/base/split_mix.h"

namespace corpusd {
namespace {

struct Cut {
  std::string text;
  std::string found;
  bool operator==(const Cut&) const = default;
};

// Byte by byte: the first of the texts that end with a stop string, without it.
Cut Expected(const std::string& text, const std::vector<std::string>& stops) {
  for (size_t end = 0; end <= text.size(); ++end) {
    const std::string_view begun = std::string_view(text).substr(0, end);
    std::string longest;
    for (const std::string& stop : stops) {
      if (begun.ends_with(stop) && stop.size() > longest.size()) longest = stop;
    }
    if (!longest.empty()) return {text.substr(0, end - longest.size()), longest};
  }
  return {text, ""};
}

bool IsWhole(const std::string& text) { return Utf8Stream().Append(text) == text; }

TEST(StopStrings, HoldsBackWhatMayBeOne) {
  StopStrings stops({"\n\nQ:", "END"});
  EXPECT_EQ(stops.Append("one E"), "one ");
  EXPECT_EQ(stops.Append("N"), "");
  EXPECT_EQ(stops.Append("Emy\n"), "ENEmy");
  EXPECT_EQ(stops.Append("\n\n"), "\n");  // the last two may be the beginning
  EXPECT_EQ(stops.Append("Q"), "");
  EXPECT_EQ(stops.found(), "");
  EXPECT_EQ(stops.Append(": more"), "");
  EXPECT_EQ(stops.found(), "\n\nQ:");
}

TEST(StopStrings, TheEndGivesBackWhatWasNone) {
  StopStrings stops({"abc"});
  EXPECT_EQ(stops.Append("xab"), "x");
  EXPECT_EQ(stops.Finish(), "ab");
  EXPECT_EQ(stops.found(), "");
}

// Random texts of few letters, some of two and four bytes, in random pieces of whole characters.
TEST(StopStrings, PiecesDoNotMatter) {
  const std::vector<std::string> letters = {"a", "b", "\xc3\xa4", "\xf0\x9f\x98\x80"};
  SplitMix random(7);
  int stopped = 0;
  const auto word = [&](size_t size) {
    std::string text;
    for (size_t i = 0; i < size; ++i) text += letters[random.Next() % letters.size()];
    return text;
  };
  for (int round = 0; round < 3000; ++round) {
    std::vector<std::string> strings(random.Next() % 4);
    for (std::string& stop : strings) stop = word(1 + random.Next() % 5);
    StopStrings stops(strings);
    std::string text, out;
    for (int piece = 0; piece < 20 && stops.found().empty(); ++piece) {
      const std::string next = word(random.Next() % 4);
      text += next;
      const std::string passed = stops.Append(next);
      EXPECT_TRUE(IsWhole(passed));
      out += passed;
    }
    if (stops.found().empty()) out += stops.Finish();
    stopped += stops.found().empty() ? 0 : 1;
    EXPECT_EQ((Cut{out, stops.found()}), Expected(text, strings)) << "round " << round;
  }
  EXPECT_GT(stopped, 1000);
}

class AnswerWriterTest : public ::testing::Test {
 protected:
  void Start(const std::vector<std::string>& stops) {
    options_.stop = stops;
    writer_.emplace(2, options_, sink_);
  }
  void Add(const std::string& bytes) {
    const TokenLogprob logprob{static_cast<TokenId>(bytes.size()), bytes, -1, {}};
    writer_->Add(bytes, &logprob);
  }
  static std::string BytesOf(std::span<const TokenLogprob> logprobs) {
    std::string bytes;
    for (const TokenLogprob& logprob : logprobs) bytes += logprob.bytes;
    return bytes;
  }

  AnswerOptions options_;
  std::string streamed_, streamed_tokens_;
  bool goes_on_ = true;
  const AnswerSink sink_ = [this](const AnswerDelta& delta) {
    EXPECT_EQ(delta.choice, 2u);
    EXPECT_TRUE(IsWhole(std::string(delta.text)));
    streamed_ += delta.text;
    streamed_tokens_ += BytesOf(delta.logprobs);
    return goes_on_;
  };
  std::optional<AnswerWriter> writer_;
};

TEST_F(AnswerWriterTest, LikelihoodsComeWithTheirText) {
  Start({"stop"});
  Add("a s");
  EXPECT_EQ(streamed_, "a ");
  EXPECT_EQ(streamed_tokens_, "");
  Add("to");
  Add("re \xc3");
  EXPECT_EQ(streamed_, "a store ");
  Add("\xa4");
  EXPECT_EQ(streamed_, "a store \xc3\xa4");
  EXPECT_EQ(streamed_tokens_, streamed_);
  Add(" st");
  writer_->Finish("length");
  EXPECT_EQ(streamed_, "a store \xc3\xa4 st");
  const GeneratedAnswer answer = writer_->Take();
  EXPECT_EQ(answer.text, streamed_);
  EXPECT_EQ(answer.finish_reason, "length");
  EXPECT_EQ(answer.stop, "");
  EXPECT_EQ(answer.tokens, 5u);
  EXPECT_EQ(BytesOf(answer.logprobs), streamed_);
}

TEST_F(AnswerWriterTest, AStopStringOverTokensLeavesNothingOfItself) {
  Start({"stop"});
  for (const char* const token : {"a ", "b s", "to", "pper"}) Add(token);
  ASSERT_TRUE(writer_->stopped());
  writer_->Finish("stop");
  const GeneratedAnswer answer = writer_->Take();
  EXPECT_EQ(answer.text, "a b ");
  EXPECT_EQ(streamed_, "a b ");
  EXPECT_EQ(answer.stop, "stop");
  EXPECT_EQ(answer.tokens, 4u);
  EXPECT_EQ(BytesOf(answer.logprobs), "a ") << "of tokens that are wholly in the text";
}

TEST_F(AnswerWriterTest, ABrokenCharacterAtTheEndIsReplaced) {
  Start({});
  Add("a");
  Add("\xf0\x9f");
  writer_->Finish("length");
  EXPECT_EQ(writer_->Take().text, "a\xef\xbf\xbd");
  EXPECT_EQ(streamed_, "a\xef\xbf\xbd");
}

TEST_F(AnswerWriterTest, ARefusedPieceIsTheLast) {
  Start({});
  goes_on_ = false;
  Add("a");
  EXPECT_TRUE(writer_->refused());
  Add("b");
  writer_->Finish("cancelled");
  EXPECT_EQ(streamed_, "a");
  EXPECT_EQ(writer_->Take().text, "a");
}

}  // namespace
}  // namespace corpusd
