// Counting with a made-up answerer; the model's own path on the tiny model and the real one.
#include "tests/eval/recall.h"

#include <gtest/gtest.h>

#include <map>

#include "tests/eval/recall_plot.h"
#include "tests/eval/stored_answerer.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_paths.h"
#include "tests/support/tiny_model.h"

namespace corpusd {
namespace {

// Answers right in "good"; in "bad" wrong for needles in the second half, with the value of the
// needle behind; in "far" always with the value farthest away.
class FakeAnswerer final : public RecallAnswerer {
 public:
  uint32_t context_tokens() const override { return 4096; }
  uint32_t frame_tokens() const override { return 100; }
  size_t CountTokens(std::string_view text) const override { return text.size() / 4; }
  Status CheckFormat(const std::string& format) const override {
    return format == "absent" ? InvalidArgumentError("no such format") : OkStatus();
  }
  Result<std::vector<std::string>> Answer(const RecallCase& recall,
                                          const std::string& format) override {
    ++computed[format];
    std::vector<std::string> answers;
    for (const RecallQuestion& question : recall.questions) {
      size_t needle = question.needle;
      if (format == "bad" && question.decile >= 5) needle = (needle + 1) % recall.values.size();
      if (format == "far")
        needle = needle < recall.values.size() / 2 ? recall.values.size() - 1 : 0;
      answers.push_back(" " + recall.values[needle] + ". And so on");
    }
    return answers;
  }
  std::map<std::string, size_t> computed;
};

RecallOptions SmallOptions() {
  RecallOptions options;
  options.tasks = {RecallTask::kRecords};
  options.lengths = {1024, 2048};
  options.formats = {"good", "bad", "far"};
  options.samples = 3;
  return options;
}

void Quiet(const RecallCase&, const RecallStatistics&,
           const std::vector<std::vector<std::string>>&) {}

TEST(Recall, CountsHitsNeighboursAndOthersByLengthFormatAndDecile) {
  FakeAnswerer answerer;
  const auto measured = MeasureRecall(answerer, SmallOptions(), Quiet);
  ASSERT_TRUE(measured.ok()) << measured.status().ToString();
  // A text is computed once a format, whatever is asked about it.
  EXPECT_EQ(answerer.computed["good"], 6u);
  ASSERT_EQ(measured->cells().size(), 6u);
  const RecallCell& good = measured->cells()[0];
  const RecallCell& bad = measured->cells()[1];
  const RecallCell& far = measured->cells()[2];
  EXPECT_EQ(good.format, "good");
  EXPECT_EQ(good.length, 1024u);
  EXPECT_EQ(good.total.asked, 30u);
  EXPECT_EQ(good.total.recall(), 1);
  EXPECT_EQ(good.lost + good.gained, 0u);
  EXPECT_EQ(bad.total.hits, 15u);
  EXPECT_EQ(bad.lost, 15u);
  // The last needle's wrong answer is the first one's value, which is no neighbour's.
  EXPECT_EQ(bad.total.neighbours + bad.total.others, 15u);
  EXPECT_GE(bad.total.neighbours, 12u);
  for (uint32_t d = 0; d < kDeciles; ++d) {
    EXPECT_EQ(bad.deciles[d].asked, 3u);
    EXPECT_EQ(bad.deciles[d].hits, d < 5 ? 3u : 0u);
  }
  EXPECT_EQ(far.total.hits, 0u);
  EXPECT_EQ(far.total.others, 30u);
  EXPECT_EQ(measured->cells()[3].length, 2048u);

  const auto totals = measured->Totals();
  ASSERT_EQ(totals.size(), 3u);
  EXPECT_EQ(totals[1].total.asked, 60u);
  EXPECT_EQ(totals[1].lost, 30u);
  EXPECT_EQ(totals[1].deciles[9].asked, 6u);
}

TEST(Recall, GainsAreCountedBesideTheFirstFormat) {
  FakeAnswerer answerer;
  RecallOptions options = SmallOptions();
  options.formats = {"bad", "good"};
  const auto measured = MeasureRecall(answerer, options, Quiet);
  ASSERT_TRUE(measured.ok());
  EXPECT_EQ(measured->cells()[1].gained, 15u);
  EXPECT_EQ(measured->cells()[1].lost, 0u);
}

TEST(Recall, WrongOptionsAreRefused) {
  FakeAnswerer answerer;
  const auto refused = [&](const std::function<void(RecallOptions*)>& change) {
    RecallOptions options = SmallOptions();
    change(&options);
    return MeasureRecall(answerer, options, Quiet).status().code() == StatusCode::kInvalidArgument;
  };
  EXPECT_TRUE(refused([](RecallOptions* o) { o->lengths = {5000}; }));
  EXPECT_TRUE(refused([](RecallOptions* o) { o->lengths = {100}; }));
  EXPECT_TRUE(refused([](RecallOptions* o) { o->lengths = {101}; }));
  EXPECT_TRUE(refused([](RecallOptions* o) { o->formats = {"good", "absent"}; }));
  EXPECT_TRUE(refused([](RecallOptions* o) { o->formats.clear(); }));
  EXPECT_TRUE(refused([](RecallOptions* o) { o->samples = 0; }));
}

TEST(Recall, DefaultLengthsEndAtTheContext) {
  EXPECT_EQ(DefaultRecallLengths(8192), (std::vector<uint32_t>{1024, 2048, 4096, 8192}));
  EXPECT_EQ(DefaultRecallLengths(3000), (std::vector<uint32_t>{1024, 2048, 3000}));
  EXPECT_EQ(DefaultRecallLengths(512), (std::vector<uint32_t>{512}));
}

// From a table: 0 of 10 and 9 of 10 at 95 %.
TEST(Recall, WilsonIntervals) {
  EXPECT_NEAR(WilsonInterval(0, 10).low, 0, 1e-12);
  EXPECT_NEAR(WilsonInterval(0, 10).high, 0.2775, 1e-4);
  EXPECT_NEAR(WilsonInterval(9, 10).low, 0.5958, 1e-4);
  EXPECT_NEAR(WilsonInterval(9, 10).high, 0.9821, 1e-4);
  EXPECT_EQ(WilsonInterval(0, 0).high, 1);
}

TEST(Recall, HeatMapHasAPanelAFormatAndIsWellFormed) {
  FakeAnswerer answerer;
  const auto measured = MeasureRecall(answerer, SmallOptions(), Quiet);
  ASSERT_TRUE(measured.ok());
  const std::string svg = RecallHeatMap(*measured, "a <title> & more");
  EXPECT_NE(svg.find("records, bad: 50.0 %"), std::string::npos);
  EXPECT_NE(svg.find("a &lt;title&gt; &amp; more"), std::string::npos);
  const auto count = [&](std::string_view text) {
    size_t found = 0;
    for (size_t at = svg.find(text); at != std::string::npos; at = svg.find(text, at + 1)) ++found;
    return found;
  };
  EXPECT_EQ(count("<title>"), 3u * 2 * kDeciles);  // one a cell
  EXPECT_EQ(count("<text "), count("</text>"));
  EXPECT_EQ(count("<svg "), 1u);
  EXPECT_EQ(count("</svg>"), 1u);
}

RecallStatistics MeasureWithModel(const std::string& path, const RecallOptions& options,
                                  std::vector<std::string>* answers) {
  ModelSessionOptions session_options;
  session_options.model_path = path;
  const auto session = ModelSession::Open(session_options);
  EXPECT_TRUE(session.ok()) << session.status().ToString();
  const auto answerer = MakeModelAnswerer(**session);
  EXPECT_TRUE(answerer.ok()) << answerer.status().ToString();
  const auto measured =
      MeasureRecall(**answerer, options,
                    [&](const RecallCase&, const RecallStatistics&,
                        const std::vector<std::vector<std::string>>& texts) {
                      for (const auto& format : texts)
                        answers->insert(answers->end(), format.begin(), format.end());
                    });
  EXPECT_TRUE(measured.ok()) << measured.status().ToString();
  return measured.ok() ? *measured : RecallStatistics({});
}

TEST(Recall, TheTinyModelAnswersTheSameTwice) {
  const TempDir folder;
  const std::string path = folder.File("tiny.gguf");
  WriteTinyModel(path);
  RecallOptions options;
  options.lengths = {512};
  options.samples = 1;
  std::vector<std::string> first, second;
  const RecallStatistics statistics = MeasureWithModel(path, options, &first);
  (void)MeasureWithModel(path, options, &second);
  EXPECT_EQ(first, second);
  EXPECT_EQ(statistics.cells().size(), 2 * kChatRecallTasks.size());
}

// What the needle model was trained for: its own chunks cut a few needles and questions.
TEST(Recall, TheNeedleModelRecallsPairsThroughTheStoreFarBeyondItsTexts) {
  const TempDir folder;
  StoredAnswererOptions stored;
  stored.engine.model_path = GoldenPath("../eval/needle");
  stored.work_dir = folder.path();
  stored.host_bytes = uint64_t{64} << 20;
  stored.disk_bytes = uint64_t{256} << 20;
  const auto answerer = MakeStoredAnswerer(stored);
  ASSERT_TRUE(answerer.ok()) << answerer.status().ToString();
  RecallOptions options;
  options.tasks = {RecallTask::kPairs};
  options.lengths = {4096};
  options.formats = {"bf16", "bf16-untuned"};
  options.samples = 1;
  const auto measured = MeasureRecall(**answerer, options, Quiet);
  ASSERT_TRUE(measured.ok()) << measured.status().ToString();
  ASSERT_EQ(measured->cells().size(), 2u);
  for (const RecallCell& cell : measured->cells()) {
    EXPECT_GE(cell.total.asked, 15u);
    EXPECT_GE(cell.total.recall(), 0.8) << cell.format;
  }
  EXPECT_EQ((*answerer)->costs().questions, 2 * measured->cells()[0].total.asked);
  options.tasks = {RecallTask::kRecords};
  const auto helped = MeasureRecall(**answerer, options, Quiet);
  EXPECT_EQ(helped.status().code(), StatusCode::kInvalidArgument);
}

TEST(Recall, TheRealModelFindsTheOnlyPassKeyInAShortText) {
  if (!TestModelExists()) GTEST_SKIP() << TestModelPath() << " is absent: run deploy/fetch_model";
  RecallOptions options;
  options.tasks = {RecallTask::kPasskey};
  options.lengths = {400};
  options.samples = 3;
  std::vector<std::string> answers;
  const RecallStatistics statistics = MeasureWithModel(TestModelPath(), options, &answers);
  ASSERT_EQ(statistics.cells().size(), 2u);
  EXPECT_GE(statistics.cells()[0].total.hits, 2u) << answers.front();
}

}  // namespace
}  // namespace corpusd
