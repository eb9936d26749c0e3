#include "tests/eval/long_task.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "tests/eval/recall_task.h"
#include "tests/eval/token_text.h"

namespace corpusd {
namespace {

constexpr size_t kQuestions = 20;

size_t CountBytes(std::string_view text) { return text.size(); }

// Eight files of made-up sentences, 20 KB each.
const std::vector<LongDocument>& Files() {
  static const std::vector<LongDocument> kFiles = [] {
    std::vector<LongDocument> made;
    for (uint64_t i = 0; i < 8; ++i) {
      made.push_back({"file" + std::to_string(i), RecallFiller(100 + i, 20000)});
    }
    return made;
  }();
  return kFiles;
}

LongCorpusOptions Options(LongTask task, uint64_t seed = 5, const std::string& name = "prose") {
  return {task, name, Files(), 40000, seed, kQuestions, CountBytes};
}

LongCorpus Make(const LongCorpusOptions& options) {
  auto made = MakeLongCorpus(options);
  EXPECT_TRUE(made.ok()) << made.status().ToString();
  return made.ok() ? *std::move(made) : LongCorpus{};
}

std::string AllText(const LongCorpus& corpus) {
  std::string text;
  for (const LongDocument& document : corpus.documents)
    text += document.path + "\n" + document.text;
  return text;
}

TEST(LongTask, NamesAreReadBack) {
  for (const LongTask task : kLongTasks) {
    const auto parsed = ParseLongTask(LongTaskName(task));
    ASSERT_TRUE(parsed.ok());
    EXPECT_EQ(*parsed, task);
  }
  EXPECT_EQ(ParseLongTask("passkey").status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(Make(Options(LongTask::kMultikey)).Name(), "multikey-prose");
  EXPECT_EQ(Make(Options(LongTask::kRecords)).Name(), "records");
}

TEST(LongTask, TheSameForTheSameSeedAndTextsAndOnlyThen) {
  for (const LongTask task : kLongTasks) {
    const std::string first = AllText(Make(Options(task)));
    EXPECT_EQ(first, AllText(Make(Options(task))));
    EXPECT_NE(first, AllText(Make(Options(task, 6))));
  }
  EXPECT_NE(AllText(Make(Options(LongTask::kFacts))),
            AllText(Make(Options(LongTask::kFacts, 5, "code"))));
}

TEST(LongTask, FillsTheLengthAndNoMoreWithDocumentsOfTheirOwnNames) {
  for (const LongTask task : kLongTasks) {
    const LongCorpus corpus = Make(Options(task));
    size_t tokens = 0;
    std::set<std::string> paths;
    for (const LongDocument& document : corpus.documents) {
      tokens += document.text.size();
      EXPECT_TRUE(paths.insert(document.path).second) << document.path;
      EXPECT_EQ(document.text.back(), '\n');
    }
    EXPECT_EQ(tokens, corpus.tokens);
    EXPECT_LE(tokens, 40000u);
    EXPECT_GE(tokens, 38000u) << LongTaskName(task);
    EXPECT_GE(corpus.documents.size(), 3u) << LongTaskName(task);
  }
}

TEST(LongTask, EveryLineAskedForStandsOnceAtItsDepthWithTheAnswer) {
  for (const LongTask task : kLongTasks) {
    const LongCorpus corpus = Make(Options(task));
    const std::string all = AllText(corpus);
    ASSERT_EQ(corpus.questions.size(), task == LongTask::kNeedle ? kDeciles : kQuestions);
    std::map<uint32_t, size_t> deciles;
    for (const LongQuestion& question : corpus.questions) {
      ++deciles[question.decile];
      const size_t at = all.find(question.line + "\n");
      ASSERT_NE(at, std::string::npos) << question.line;
      EXPECT_EQ(all.find(question.line, at + 1), std::string::npos) << question.line;
      EXPECT_TRUE(HoldsWord(question.line, question.answer));
      EXPECT_FALSE(HoldsWord(question.text, question.answer)) << question.text;
      EXPECT_NE(corpus.documents[question.document].text.find(question.line), std::string::npos);
      const double depth = static_cast<double>(at) / static_cast<double>(all.size());
      EXPECT_NEAR(depth, (question.decile + 0.5) / kDeciles, 0.09) << LongTaskName(task);
    }
    for (uint32_t d = 0; d < kDeciles; ++d) {
      EXPECT_EQ(deciles[d], corpus.questions.size() / kDeciles) << LongTaskName(task);
    }
  }
}

TEST(LongTask, FactsOfOnePersonStandInSeveralDocuments) {
  const LongCorpus corpus = Make(Options(LongTask::kFacts));
  // A name is the two words that stand before "was born".
  std::string name;
  for (const LongQuestion& question : corpus.questions) {
    if (question.text.starts_with("In which village was ")) {
      name = question.text.substr(21, question.text.size() - 21 - 6);
    }
  }
  ASSERT_FALSE(name.empty());
  std::set<std::string> holders;
  for (const LongDocument& document : corpus.documents) {
    if (document.text.find(name) != std::string::npos) holders.insert(document.path);
  }
  EXPECT_GE(holders.size(), 3u) << name;
}

TEST(LongTask, FactsInCodeAndLogsLookLikeTheirLines) {
  EXPECT_TRUE(
      Make(Options(LongTask::kMultikey, 5, "code-perl")).questions[0].line.starts_with("# "));
  EXPECT_NE(Make(Options(LongTask::kMultikey, 5, "log")).questions[0].line.find("]: The "),
            std::string::npos);
}

TEST(LongTask, TooFewTextsAndTooShortLengthsAreRefused) {
  LongCorpusOptions options = Options(LongTask::kMultikey);
  options.length = 400000;
  Status status = MakeLongCorpus(options).status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("'prose' have only"), std::string::npos) << status.message();
  for (const LongTask task : kLongTasks) {
    options = Options(task);
    options.length = 30;
    EXPECT_EQ(MakeLongCorpus(options).status().code(), StatusCode::kInvalidArgument);
  }
}

TEST(TokenText, FindsTheTokensOfALineAndOfItsAnswer) {
  // A token is two bytes, or the last one.
  std::vector<std::string> pieces;
  const std::string text = "aa\nkey is 42.\nend";
  for (size_t i = 0; i < text.size(); i += 2) pieces.push_back(text.substr(i, 2));
  std::vector<TokenId> tokens(pieces.size());
  for (TokenId i = 0; i < tokens.size(); ++i) tokens[i] = i;
  const TokenCoder coder{{}, [&](TokenId id) { return std::string_view(pieces[id]); }};
  EXPECT_EQ(coder.Decode(tokens), text);
  const auto place = FindLine(coder, tokens, "key is 42.", "42");
  ASSERT_TRUE(place.has_value());
  EXPECT_EQ(place->line, (TokenSpan{1, 7}));    // bytes 3..12
  EXPECT_EQ(place->answer, (TokenSpan{5, 6}));  // bytes 10..11
  EXPECT_FALSE(FindLine(coder, tokens, "key was 42.", "42").has_value());
  EXPECT_FALSE(FindLine(coder, tokens, "key is 42.", "43").has_value());
}

}  // namespace
}  // namespace corpusd
