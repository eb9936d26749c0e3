// An engine over two CUDA devices against one over one of them: what is stored and answered, and
// what becomes of both when a rank fails. Skipped where there is one device.
#include <gtest/gtest.h>

#include <algorithm>
#include <thread>

#include "store/base/fault_point.h"
#include "tests/gpu/two_devices_fixture.h"
#include "tests/unit/engine/ranks/separate_device.h"

namespace corpusd {
namespace {

class CudaRanksTest : public TwoDevicesFixture, public ::testing::WithParamInterface<const char*> {
 protected:
  void Open(uint32_t ranks, const std::string& folder) {
    engine_.reset();
    store_.reset();
    store_options_.data_dir = folder_.File(folder);
    devices_.Use(ranks, &options_, &store_options_);
    options_.ranks.tensor_ranks = ranks == 4 ? 2 : 1;
    Restart();
    if (ranks > 1) AwaitGroups(1);
  }
  void AwaitGroups(uint64_t groups) {
    const auto formed = [&] {
      const RanksReport report = engine_->ranks();
      return report.groups >= groups &&
             std::ranges::any_of(report.ranks, [](const auto& r) { return r.state == "follows"; });
    };
    for (int i = 0; i < 3000 && !formed(); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    ASSERT_TRUE(formed()) << groups << " groups";
  }
  std::string Answer(const std::string& corpus) {
    const auto report = Ask(corpus);
    EXPECT_TRUE(report.ok()) << report.status().ToString();
    return report.ok() ? report->answer : "";
  }

  const TestDevices devices_{"cuda"};
};

INSTANTIATE_TEST_SUITE_P(Formats, CudaRanksTest, ::testing::Values("bf16", "cq8"));

// Up to a span of pages: one device alone has the order of merges of several.
TEST_P(CudaRanksTest, ACorpusOfOneSpanHasTheBytesOfOneDevice) {
  Open(1, "alone");
  Ingest("text", Prose(1000), GetParam());
  const CorpusRecord alone = *store_->GetCorpus("text");
  ASSERT_LE(alone.chain.size(), 63u);
  const std::string bytes = BytesOf("text"), answer = Answer("text");
  Open(2, "two");
  Ingest("text", Prose(1000), GetParam());
  EXPECT_GT(engine_->ranks().passes, 0u);
  EXPECT_EQ(store_->GetCorpus("text")->chain, alone.chain);
  EXPECT_TRUE(BytesOf("text") == bytes);
  EXPECT_EQ(Answer("text"), answer);
}

TEST_P(CudaRanksTest, ALongerOneIsTheSameHoweverOftenAndOneDeviceServesIt) {
  Open(2, "two");
  Ingest("text", Prose(2000), GetParam());
  ASSERT_GT(store_->GetCorpus("text")->chain.size(), 70u);
  const std::string bytes = BytesOf("text");
  const uint64_t passes = engine_->ranks().passes;
  const std::string answer = Answer("text");
  EXPECT_GE(engine_->ranks().passes, passes + 16);  // the question, and a token each
  // Told with the next beat.
  const auto held = [&] { return engine_->ranks().ranks.back().device_used_bytes; };
  for (int i = 0; i < 300 && held() == 0; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_GT(held(), 0u);
  Open(2, "again");
  Ingest("text", Prose(2000), GetParam());
  EXPECT_TRUE(BytesOf("text") == bytes);
  EXPECT_EQ(Answer("text"), answer);
  EXPECT_EQ(engine_->ranks().lost, 0u);
  Open(1, "again");
  EXPECT_EQ(Answer("text"), answer);
  Open(2, "again");
  EXPECT_EQ(Answer("text"), answer);
}

// Two ranks have half of the text each, and share its weights with another device each.
TEST_P(CudaRanksTest, AGridStoresAndAnswersAsTheRanksOfItsText) {
  if (CudaDeviceCount() < 4) GTEST_SKIP() << CudaDeviceCount() << " devices";
  Open(2, "two");
  Ingest("text", Prose(2000), GetParam());
  const std::string bytes = BytesOf("text"), answer = Answer("text");
  Open(4, "grid");
  Ingest("text", Prose(2000), GetParam());
  EXPECT_TRUE(BytesOf("text") == bytes);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Answer("text"), answer);
  const RanksReport report = engine_->ranks();
  EXPECT_GT(report.passes, 16u);
  EXPECT_EQ(report.lost, 0u);
  ASSERT_EQ(report.ranks.size(), 4u);
  EXPECT_EQ(report.ranks[1].state, "weights");
  EXPECT_EQ(report.ranks[3].state, "weights");
  Open(2, "grid");
  EXPECT_EQ(Answer("text"), answer);
  Open(4, "two");
  EXPECT_EQ(Answer("text"), answer);
  if (std::string(GetParam()) != "bf16") return;
  ArmFault("rank.compute", FaultKind::kIoError, /*after=*/4, /*times=*/1);
  const auto failed = Ask("text");
  EXPECT_EQ(failed.status().code(), StatusCode::kUnavailable) << failed.status().ToString();
  DisarmFaults();
  AwaitGroups(2);
  EXPECT_EQ(Answer("text"), answer);
}

// Of two texts as long as each other, the pages of other ranks look alike.
TEST_P(CudaRanksTest, QuestionsOverTwoTextsShareAPass) {
  Open(2, "two");
  const std::vector<std::string> corpora = {"a", "b"};
  std::vector<std::string> alone;
  for (size_t i = 0; i < corpora.size(); ++i) {
    Ingest(corpora[i], Prose(2000).replace(0, 6, i == 0 ? "word11" : "word22"), GetParam());
    alone.push_back(Answer(corpora[i]));
  }
  ASSERT_EQ(store_->GetCorpus("a")->tokens, store_->GetCorpus("b")->tokens);
  std::vector<std::string> together(8);
  {
    std::vector<std::jthread> threads;
    for (size_t i = 0; i < together.size(); ++i) {
      threads.emplace_back([&, i] { together[i] = Answer(corpora[i % 2]); });
    }
  }
  for (size_t i = 0; i < together.size(); ++i) EXPECT_EQ(together[i], alone[i % 2]) << i;
}

TEST_P(CudaRanksTest, ARankThatFailsIsNamedAndTheJobGoesOn) {
  if (std::string(GetParam()) != "bf16") GTEST_SKIP() << "one format is enough";
  Open(2, "two");
  Ingest("text", Prose(2000), GetParam());
  const std::string bytes = BytesOf("text"), answer = Answer("text");
  Open(2, "failing");
  ASSERT_TRUE(Create("text", Prose(2000), GetParam()).ok());
  ArmFault("rank.compute", FaultKind::kIoError, /*after=*/0, /*times=*/1);
  const Status failed = engine_->Prefill("text", [](const PrefillProgress&) {}, {});
  EXPECT_EQ(failed.code(), StatusCode::kUnavailable) << failed.ToString();
  EXPECT_NE(failed.message().find("rank 1 of 2"), std::string::npos) << failed.ToString();
  AwaitGroups(2);
  const Status finished = engine_->Prefill("text", [](const PrefillProgress&) {}, {});
  ASSERT_TRUE(finished.ok()) << finished.ToString();
  EXPECT_TRUE(BytesOf("text") == bytes);
  ArmFault("rank.compute", FaultKind::kIoError, /*after=*/4, /*times=*/1);
  const auto cut_off = Ask("text");
  EXPECT_EQ(cut_off.status().code(), StatusCode::kUnavailable) << cut_off.status().ToString();
  AwaitGroups(3);
  EXPECT_EQ(Answer("text"), answer);
}

}  // namespace
}  // namespace corpusd
