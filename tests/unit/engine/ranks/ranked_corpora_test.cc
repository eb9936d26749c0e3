// An engine with ranks as threads against one without: the same blocks under the same digests, the
// same answers, whoever made a corpus and whoever serves it.
#include <gtest/gtest.h>

#include <thread>

#include "store/base/fault_point.h"
#include "tests/unit/engine/ranks/separate_device.h"
#include "tests/unit/engine/segmented_fixture.h"

namespace corpusd {
namespace {

// Longer than a span of pages, so that a corpus lies with several ranks: a token is a byte or two.
constexpr size_t kWords = 1400;

class RankedCorporaTest : public SegmentedFixture,
                          public ::testing::WithParamInterface<const char*> {
 protected:
  void SetUp() override {
    SegmentedFixture::SetUp();
    // Its own sets 4096.
    model_.context_tokens = 24576;
    WriteTinyModel(options_.model_path, model_);
  }

  // An engine of so many ranks over the data folder of this name.
  void Open(uint32_t ranks, const std::string& folder) {
    engine_.reset();
    store_.reset();
    store_options_.data_dir = folder_.File(folder);
    devices_.Use(ranks, &options_, &store_options_);
    Restart();
    if (ranks > 1) AwaitRanks(ranks);
  }

  void AwaitRanks(uint32_t ranks) {
    const auto follow = [&] {
      uint32_t count = 0;
      for (const RankStatus& rank : engine_->ranks().ranks) count += rank.state != "missing";
      return count == ranks;
    };
    for (int i = 0; i < 1000 && !follow(); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    ASSERT_TRUE(follow()) << ranks << " ranks";
  }

  // The group before has ended, and so many have formed.
  void AwaitGroups(uint64_t groups) {
    const auto formed = [&] {
      const RanksReport report = engine_->ranks();
      return report.groups >= groups && report.ranks.back().state == "follows";
    };
    for (int i = 0; i < 1000 && !formed(); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    ASSERT_TRUE(formed()) << groups << " groups";
  }

  std::string Answer(const std::string& corpus, const std::string& question = "why?") {
    QuestionRequest request;
    request.corpus = corpus;
    request.question = question;
    request.max_tokens = 12;
    const auto report = engine_->Ask(request, [](const auto&) { return true; }, {});
    EXPECT_TRUE(report.ok()) << report.status().ToString();
    return report.ok() ? report->answer : "";
  }

  const TestDevices devices_{GetParam()};
};

INSTANTIATE_TEST_SUITE_P(Devices, RankedCorporaTest, ::testing::Values("cpu", "device"));

TEST_P(RankedCorporaTest, AnyNumberOfRanksStoresAndAnswersAsOne) {
  for (const std::string format : {"bf16", "int8"}) {
    Open(1, "alone-" + format);
    Ingest("text", Prose(kWords), format);
    const CorpusRecord alone = *store_->GetCorpus("text");
    ASSERT_GT(alone.chain.size(), 68u);
    const std::string bytes = BytesOf("text");
    const std::string answer = Answer("text");
    for (const uint32_t ranks : {2u, 3u}) {
      SCOPED_TRACE(format + ", " + std::to_string(ranks) + " ranks");
      const std::string folder = format + std::to_string(ranks);
      Open(ranks, folder);
      Ingest("text", Prose(kWords), format);
      const CorpusRecord record = *store_->GetCorpus("text");
      EXPECT_EQ(record.chain, alone.chain);
      EXPECT_EQ(record.durable_tokens, alone.durable_tokens);
      EXPECT_EQ(record.state, CorpusState::kReady);
      EXPECT_EQ(BytesOf("text"), bytes);
      EXPECT_EQ(Answer("text"), answer);
      EXPECT_EQ(engine_->ranks().lost, 0u);
      // Segments of 512 tokens a rank, and a pass a token.
      EXPECT_GE(engine_->ranks().passes, alone.tokens / (512 * ranks) + 12);
      // Served by another number.
      Open(5 - ranks, folder);
      EXPECT_EQ(Answer("text"), answer);
      Open(1, folder);
      EXPECT_EQ(Answer("text"), answer);
    }
  }
}

TEST_P(RankedCorporaTest, QuestionsShareAPassAndAQuestionMayHaveSeveralAnswers) {
  Open(1, "data");
  Ingest("text", Prose(kWords));
  std::vector<std::string> alone;
  for (int i = 0; i < 4; ++i) alone.push_back(Answer("text", "question " + std::to_string(i)));
  QuestionRequest several;
  several.corpus = "text";
  several.question = "why?";
  several.max_tokens = 8;
  several.answers.count = 3;
  several.answers.sampling.temperature = 1;
  const auto ask = [&] {
    std::vector<std::string> texts;
    const auto report = engine_->Ask(several, [](const auto&) { return true; }, {});
    EXPECT_TRUE(report.ok()) << report.status().ToString();
    if (report.ok()) {
      for (const GeneratedAnswer& answer : report->answers) texts.push_back(answer.text);
    }
    return texts;
  };
  const auto texts = ask();
  Open(2, "data");
  std::vector<std::string> together(alone.size());
  {
    std::vector<std::jthread> threads;
    for (size_t i = 0; i < together.size(); ++i) {
      threads.emplace_back(
          [&, i] { together[i] = Answer("text", "question " + std::to_string(i)); });
    }
  }
  EXPECT_EQ(together, alone);
  EXPECT_EQ(ask(), texts);
}

TEST_P(RankedCorporaTest, WhatSomeBeganOthersFinish) {
  Open(1, "alone");
  Ingest("text", Prose(kWords));
  const std::string bytes = BytesOf("text");
  const CorpusRecord alone = *store_->GetCorpus("text");
  Open(3, "data");
  ASSERT_TRUE(Create("text", Prose(kWords)).ok());
  std::stop_source stop;
  const Status stopped = engine_->Prefill(
      "text",
      [&](const PrefillProgress& progress) {
        if (progress.done_tokens > 0) stop.request_stop();
      },
      stop.get_token());
  EXPECT_EQ(stopped.code(), StatusCode::kCancelled) << stopped.ToString();
  const uint64_t durable = store_->GetCorpus("text")->durable_tokens;
  EXPECT_GT(durable, 0u);
  EXPECT_LT(durable, alone.tokens);
  Open(2, "data");
  const Status finished = engine_->Prefill("text", [](const PrefillProgress&) {}, {});
  ASSERT_TRUE(finished.ok()) << finished.ToString();
  EXPECT_EQ(store_->GetCorpus("text")->chain, alone.chain);
  EXPECT_EQ(BytesOf("text"), bytes);
}

TEST_P(RankedCorporaTest, AThreadThatFailsIsNamedAndTheOthersGoOn) {
  Open(1, "alone");
  Ingest("text", Prose(kWords));
  const std::string bytes = BytesOf("text"), answer = Answer("text");
  Open(2, "data");
  ASSERT_TRUE(Create("text", Prose(kWords)).ok());
  ArmFault("rank.compute", FaultKind::kIoError, /*after=*/3, /*times=*/1);
  const Status failed = engine_->Prefill("text", [](const PrefillProgress&) {}, {});
  EXPECT_EQ(failed.code(), StatusCode::kUnavailable) << failed.ToString();
  EXPECT_NE(failed.message().find("rank 1 of 2"), std::string::npos) << failed.ToString();
  EXPECT_GT(store_->GetCorpus("text")->durable_tokens, 0u);
  AwaitGroups(2);
  const Status finished = engine_->Prefill("text", [](const PrefillProgress&) {}, {});
  ASSERT_TRUE(finished.ok()) << finished.ToString();
  EXPECT_EQ(BytesOf("text"), bytes);
  // In an answer.
  ArmFault("rank.compute", FaultKind::kIoError, /*after=*/4, /*times=*/1);
  QuestionRequest request;
  request.corpus = "text";
  request.question = "why?";
  request.max_tokens = 12;
  const auto cut_off = engine_->Ask(request, [](const auto&) { return true; }, {});
  EXPECT_EQ(cut_off.status().code(), StatusCode::kUnavailable) << cut_off.status().ToString();
  EXPECT_NE(cut_off.status().message().find("rank 1 of 2"), std::string::npos)
      << cut_off.status().ToString();
  AwaitGroups(3);
  EXPECT_EQ(Answer("text"), answer);
  DisarmFaults();
}

TEST_P(RankedCorporaTest, WhereADeviceHasNoRoomOneRankGoesOnAlone) {
  if (devices_.name == "cpu") GTEST_SKIP() << "blocks stay in the store's memory";
  Open(1, "alone");
  Ingest("text", Prose(kWords));
  const std::string bytes = BytesOf("text"), answer = Answer("text");
  options_.ranks.device_bytes = uint64_t{256} << 10;
  Open(2, "data");
  Ingest("text", Prose(kWords));
  EXPECT_EQ(BytesOf("text"), bytes);
  EXPECT_EQ(Answer("text"), answer);
  EXPECT_EQ(engine_->ranks().lost, 0u);
}

TEST_P(RankedCorporaTest, DocumentsAreDealtAndTheirBlocksAreThoseOfOneRank) {
  std::vector<TestDocument> documents;
  for (int i = 0; i < 9; ++i) {
    documents.push_back({"d" + std::to_string(i), Prose(20 + static_cast<size_t>(i) * 37, i + 1)});
  }
  Open(1, "alone");
  IngestSegmented("docs", documents);
  const CorpusRecord alone = *store_->GetCorpus("docs");
  const std::string bytes = BytesOf("docs");
  const std::string answer = Answer("docs");
  for (const uint32_t ranks : {2u, 3u}) {
    Open(ranks, "ranks" + std::to_string(ranks));
    IngestSegmented("docs", documents);
    EXPECT_EQ(store_->GetCorpus("docs")->chain, alone.chain);
    EXPECT_EQ(BytesOf("docs"), bytes);
    EXPECT_GT(engine_->ranks().passes, 0u);
    EXPECT_EQ(Answer("docs"), answer);
    EXPECT_EQ(engine_->ranks().lost, 0u);
  }
}

}  // namespace
}  // namespace corpusd
