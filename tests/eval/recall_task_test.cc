#include "tests/eval/recall_task.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

namespace corpusd {
namespace {

// Words and every other character count one each: more than the parts of a text put together at
// times, as tokens do.
size_t CountWords(std::string_view text) {
  size_t count = 0;
  bool inside = false;
  for (const char c : text) {
    const bool word = std::isalnum(static_cast<unsigned char>(c)) != 0;
    if (!word || !inside) ++count;
    inside = word;
  }
  return count;
}

RecallCaseOptions Options(RecallTask task, uint32_t sample, uint64_t seed = 7) {
  return {task, 1000, sample, seed, 900, "", CountWords};
}

RecallCase Make(const RecallCaseOptions& options) {
  const auto made = MakeRecallCase(options);
  EXPECT_TRUE(made.ok()) << made.status().ToString();
  return made.ok() ? *made : RecallCase{};
}

TEST(RecallTask, NamesAreReadBack) {
  for (const RecallTask task : kRecallTasks) {
    const auto parsed = ParseRecallTask(RecallTaskName(task));
    ASSERT_TRUE(parsed.ok());
    EXPECT_EQ(*parsed, task);
  }
  EXPECT_EQ(ParseRecallTask("multikey").status().code(), StatusCode::kInvalidArgument);
}

TEST(RecallTask, TheSameForTheSameSeedAndOnlyThen) {
  for (const RecallTask task : kRecallTasks) {
    const RecallCase first = Make(Options(task, 3));
    EXPECT_EQ(first.haystack, Make(Options(task, 3)).haystack);
    EXPECT_NE(first.haystack, Make(Options(task, 4)).haystack);
    EXPECT_NE(first.values, Make(Options(task, 3, 8)).values);
  }
}

TEST(RecallTask, FillsTheRoomAndNoMore) {
  for (const RecallTask task : kRecallTasks) {
    for (uint32_t sample = 0; sample < 10; ++sample) {
      const size_t tokens = CountWords(Make(Options(task, sample)).haystack);
      EXPECT_LE(tokens, 900u);
      EXPECT_GE(tokens, 850u) << RecallTaskName(task);
    }
  }
}

TEST(RecallTask, EveryValueStandsOnceInOrderBehindItsAnswersStart) {
  for (const RecallTask task :
       {RecallTask::kMultikey2, RecallTask::kMultikey3, RecallTask::kRecords}) {
    const RecallCase made = Make(Options(task, 0));
    EXPECT_EQ(std::set(made.values.begin(), made.values.end()).size(), made.values.size());
    size_t at = 0;
    for (const std::string& value : made.values) {
      at = made.haystack.find(" " + value + ".", at);
      ASSERT_NE(at, std::string::npos);
    }
    ASSERT_EQ(made.questions.size(), kDeciles);
    for (const RecallQuestion& question : made.questions) {
      // Its last line is the needle's own; those before are other needles'.
      const size_t last = question.answer_start.rfind('\n');
      const std::string start = question.answer_start.substr(last + 1);
      ASSERT_NE(last, std::string::npos);
      const size_t place = made.haystack.find(start + " " + made.values[question.needle] + ".\n");
      ASSERT_NE(place, std::string::npos) << start;
      EXPECT_EQ(made.haystack.find(start, place + 1), std::string::npos);
      EXPECT_EQ(question.answer_start.find(start), last + 1);
      const double depth = static_cast<double>(place) / static_cast<double>(made.haystack.size());
      EXPECT_NEAR(depth, (question.decile + 0.5) / kDeciles, 0.09) << question.decile;
    }
  }
}

TEST(RecallTask, PairsStandInTheTextOnceAndFiveOfEachTenthAreAskedFor) {
  for (const RecallTask task : {RecallTask::kPairs, RecallTask::kRepeats}) {
    RecallCaseOptions options = Options(task, 0);
    options.haystack_tokens = 40000;
    const RecallCase made = Make(options);
    EXPECT_EQ(made.values.size(), 200u);
    EXPECT_EQ(std::set(made.values.begin(), made.values.end()).size(), made.values.size());
    size_t at = 0;
    for (const std::string& value : made.values) {
      at = made.haystack.find(" is " + value + ". ", at);
      ASSERT_NE(at, std::string::npos) << value;
    }
    ASSERT_EQ(made.questions.size(), 5 * kDeciles);
    for (const RecallQuestion& question : made.questions) {
      EXPECT_TRUE(question.answer_start.empty());
      ASSERT_TRUE(question.text.starts_with("What is the code of ")) << question.text;
      const std::string line = "The code of " +
                               question.text.substr(20, question.text.size() - 21) + " is " +
                               made.values[question.needle] + ". ";
      const size_t place = made.haystack.find(line);
      ASSERT_NE(place, std::string::npos) << line;
      EXPECT_EQ(place * kDeciles / made.haystack.size(), question.decile);
    }
  }
}

TEST(RecallTask, RepeatsSayOneSentenceOverAndOver) {
  const RecallCase made = Make(Options(RecallTask::kRepeats, 0));
  std::set<std::string> sentences;
  for (size_t at = 0; at < made.haystack.size();) {
    const size_t end = std::min(made.haystack.find(". ", at), made.haystack.size());
    const std::string sentence = made.haystack.substr(at, end - at);
    if (!sentence.starts_with("The code of ")) sentences.insert(sentence);
    at = end + 2;
  }
  EXPECT_EQ(sentences.size(), 1u);
}

TEST(RecallTask, APasskeysDepthFollowsItsSample) {
  for (uint32_t sample = 0; sample < 20; ++sample) {
    const RecallCase made = Make(Options(RecallTask::kPasskey, sample));
    ASSERT_EQ(made.questions.size(), 1u);
    EXPECT_EQ(made.questions[0].decile, sample % kDeciles);
    const size_t place = made.haystack.find("The pass key is: " + made.values[0]);
    ASSERT_NE(place, std::string::npos);
    const double depth = static_cast<double>(place) / static_cast<double>(made.haystack.size());
    EXPECT_NEAR(depth, (sample % kDeciles + 0.5) / kDeciles, 0.06);
  }
}

TEST(RecallTask, GivenFillerIsUsedAndRepeatedIfShort) {
  RecallCaseOptions options = Options(RecallTask::kPasskey, 0);
  options.filler = "Alpha beta gamma. Delta epsilon.\nZeta";
  const RecallCase made = Make(options);
  EXPECT_GE(CountWords(made.haystack), 800u);
  EXPECT_NE(made.haystack.find("Delta epsilon.\n"), std::string::npos);
}

TEST(RecallTask, TooLittleRoomIsRefusedWithTheTasksName) {
  for (const RecallTask task : kRecallTasks) {
    RecallCaseOptions options = Options(task, 0);
    options.haystack_tokens = 5;
    const Status status = MakeRecallCase(options).status();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find(RecallTaskName(task)), std::string::npos);
  }
}

TEST(RecallTask, AnswersAreMatchedAsWholeWordsAndNeighboursAreToldFromOthers) {
  RecallCase recall;
  recall.values = {"11111", "22222", "33333", "44444"};
  recall.questions = {{"", "", 1, 3}};
  const auto outcome = [&](std::string_view answer) {
    return ClassifyAnswer(recall, recall.questions[0], answer);
  };
  EXPECT_EQ(outcome(" 22222."), RecallOutcome::kHit);
  EXPECT_EQ(outcome("22222"), RecallOutcome::kHit);
  EXPECT_EQ(outcome("11111 or 22222"), RecallOutcome::kHit);
  EXPECT_EQ(outcome("222222"), RecallOutcome::kMiss);
  EXPECT_EQ(outcome("x22222"), RecallOutcome::kMiss);
  EXPECT_EQ(outcome("222222, 22222"), RecallOutcome::kHit);
  EXPECT_EQ(outcome(" 11111."), RecallOutcome::kNeighbour);
  EXPECT_EQ(outcome(" 33333"), RecallOutcome::kNeighbour);
  EXPECT_EQ(outcome(" 44444"), RecallOutcome::kOther);
  EXPECT_EQ(outcome("44444 33333"), RecallOutcome::kNeighbour);
  EXPECT_EQ(outcome(""), RecallOutcome::kMiss);
}

}  // namespace
}  // namespace corpusd
