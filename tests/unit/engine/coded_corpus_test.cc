// Corpora whose blocks are coded: calibration, exact first tokens, identity, restart.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "engine/calibration/kv_calibration.h"
#include "tests/support/read_file.h"
#include "tests/unit/engine/engine_fixture.h"

namespace corpusd {
namespace {

class CodedCorpusTest : public EngineFixture {
 protected:
  void SetUp() override {
    model_.head_dim = 64;
    calibration_dir_ = folder_.File("calibration");
    options_.calibration_dir = calibration_dir_;
    options_.calibration_text = folder_.File("text");
    std::ofstream(options_.calibration_text) << Prose(3000, 5);
    options_.on_calibration = [this](size_t, size_t) { ++progress_calls_; };
    EngineFixture::SetUp();
  }

  std::string CalibrationFile() const {
    for (const auto& entry : std::filesystem::directory_iterator(calibration_dir_)) {
      return entry.path().string();
    }
    return "";
  }

  std::string calibration_dir_;
  int progress_calls_ = 0;
};

TEST_F(CodedCorpusTest, AnswersAreTheSameFromMemoryFromDiskAndComputedAgain) {
  for (const std::string format : {"cq8", "cq4", "cq4k2v", "cq3", "cq2", "cq2+0:cq8k4v"}) {
    Ingest(format, Prose(400), format);
    const auto fresh = Ask(format);
    ASSERT_TRUE(fresh.ok()) << fresh.status().ToString();
    Restart();
    const auto restarted = Ask(format);
    const auto computed = Ask(format, /*no_cache=*/true);
    ASSERT_TRUE(restarted.ok() && computed.ok()) << restarted.status().ToString();
    EXPECT_EQ(restarted->answer, fresh->answer) << format;
    EXPECT_EQ(computed->answer, fresh->answer) << format;
    EXPECT_EQ(restarted->recomputed_tokens, 0u);
    EXPECT_GT(restarted->disk_bytes, 0u);
  }
}

TEST_F(CodedCorpusTest, AQuarterOfTheBytesOfBf16) {
  Ingest("exact", Prose(400), "bf16");
  Ingest("coded", Prose(400), "cq4");
  const double bf16 = static_cast<double>(store_->GetCorpus("exact")->block_bytes);
  const double cq4 = static_cast<double>(store_->GetCorpus("coded")->block_bytes);
  EXPECT_NEAR(cq4 / bf16, 4.1875 / 16, 1e-6);
}

TEST_F(CodedCorpusTest, LayersOfOtherCodecsGiveOtherRootsAndTheBytesTheySay) {
  Ingest("cq4", Prose(400), "cq4");
  Ingest("first", Prose(400), "cq4+0:cq8");
  Ingest("last", Prose(400), "cq8+0:cq4");
  Ingest("twin", Prose(400), "cq8k4v+0:cq4+1:cq8");
  const CorpusRecord cq4 = *store_->GetCorpus("cq4"), first = *store_->GetCorpus("first");
  const CorpusRecord last = *store_->GetCorpus("last"), twin = *store_->GetCorpus("twin");
  EXPECT_NE(first.root, cq4.root);
  EXPECT_NE(first.root, last.root);
  EXPECT_EQ(twin.root, last.root) << "the same layers, said otherwise";
  EXPECT_EQ(first.kv_format, "cq8+1:cq4");
  EXPECT_EQ(last.kv_format, "cq4+1:cq8");
  EXPECT_EQ(BytesOf("twin"), BytesOf("last"));
  EXPECT_NEAR(static_cast<double>(first.block_bytes) / static_cast<double>(cq4.block_bytes),
              (8.1875 + 4.1875) / 2 / 4.1875, 1e-3);
  // What both keep alike has the same bytes: nothing of a layer is written by another's codec.
  const uint64_t layer = cq4.block_bytes / 2;
  EXPECT_EQ(BytesOf("last").substr(0, layer), BytesOf("cq4").substr(0, layer));
}

TEST_F(CodedCorpusTest, ANameThatSaysNoFormatIsRefusedInOneSentence) {
  for (const std::string name : {"cq4+0:cq9", "cq4+2:cq8", "bf16+0:cq8", "cq4+0:cq8+0:cq2"}) {
    const Status refused = Create("a", Prose(100), name).status();
    EXPECT_EQ(refused.code(), StatusCode::kInvalidArgument) << name;
    EXPECT_TRUE(refused.message().starts_with("KV format '" + name + "' ")) << refused.message();
    EXPECT_EQ(refused.message().find('\n'), std::string::npos);
  }
  options_.kv_format = "cq4+7:cq8";
  engine_.reset();
  const auto engine = Engine::Create(options_, store_.get());
  EXPECT_EQ(engine.status().code(), StatusCode::kInvalidArgument) << engine.status().ToString();
}

TEST_F(CodedCorpusTest, TheRecordSaysWhatTheFormatCostsTheCorpus) {
  Ingest("exact", Prose(600), "bf16");
  Ingest("wide", Prose(600), "cq8");
  Ingest("narrow", Prose(600), "cq2");
  Restart();
  EXPECT_FALSE(store_->GetCorpus("exact")->quality.has_value());
  const auto wide = store_->GetCorpus("wide")->quality;
  const auto narrow = store_->GetCorpus("narrow")->quality;
  ASSERT_TRUE(wide.has_value() && narrow.has_value());
  EXPECT_GT(wide->sample_tokens, 0u);
  EXPECT_GE(wide->mean_kld, 0);
  EXPECT_GT(narrow->mean_kld, 4 * wide->mean_kld);
  EXPECT_LE(narrow->same_top, wide->same_top);
}

TEST_F(CodedCorpusTest, AnInterruptedPrefillGivesTheBytesOfAnUndisturbedOne) {
  Ingest("through", Prose(400), "cq4");
  const std::string expected = BytesOf("through");
  ASSERT_TRUE(store_->RemoveCorpus("through").ok());
  ASSERT_TRUE(Create("a", Prose(400), "cq4").ok());
  std::stop_source stop;
  const Status stopped = engine_->Prefill(
      "a",
      [&](const PrefillProgress& progress) {
        if (progress.done_tokens > 0) stop.request_stop();
      },
      stop.get_token());
  ASSERT_EQ(stopped.code(), StatusCode::kCancelled);
  Restart();
  ASSERT_TRUE(engine_->Prefill("a", [](const PrefillProgress&) {}, {}).ok());
  EXPECT_EQ(BytesOf("a"), expected);
}

TEST_F(CodedCorpusTest, OneCalibrationServesEveryRestart) {
  Ingest("a", Prose(200), "cq4");
  const int calls = progress_calls_;
  EXPECT_GT(calls, 0);
  Restart();
  Ingest("b", Prose(200, 3), "cq3");
  EXPECT_EQ(progress_calls_, calls);
}

TEST_F(CodedCorpusTest, ADamagedCalibrationIsMadeAgainAndCorporaStayReadable) {
  Ingest("a", Prose(300), "cq4");
  const auto before = Ask("a");
  const std::string path = CalibrationFile();
  std::string bytes = *ReadFile(path);
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 4);
  std::ofstream(path, std::ios::binary) << bytes;
  Restart();
  const auto after = Ask("a");
  ASSERT_TRUE(before.ok() && after.ok()) << after.status().ToString();
  EXPECT_EQ(after->answer, before->answer);
  EXPECT_EQ(after->recomputed_tokens, 0u);
}

TEST_F(CodedCorpusTest, AnotherTextGivesOtherRootsAndOldCorporaAreServedByTheirOwn) {
  Ingest("a", Prose(300), "cq4");
  const auto before = Ask("a");
  options_.calibration_text = folder_.File("other text");
  std::ofstream(options_.calibration_text) << Prose(3000, 9);
  Restart();
  Ingest("b", Prose(300), "cq4");
  EXPECT_NE(store_->GetCorpus("a")->root, store_->GetCorpus("b")->root);
  const auto after = Ask("a");
  ASSERT_TRUE(before.ok() && after.ok()) << after.status().ToString();
  EXPECT_EQ(after->answer, before->answer);
  EXPECT_EQ(after->recomputed_tokens, 0u);
}

TEST_F(CodedCorpusTest, ACorpusWithoutItsCalibrationIsRefusedByTheFieldThatDiffers) {
  Ingest("a", Prose(300), "cq4");
  std::filesystem::remove_all(calibration_dir_);
  options_.calibration_text = folder_.File("other text");
  std::ofstream(options_.calibration_text) << Prose(3000, 9);
  Restart();
  const auto refused = Ask("a");
  EXPECT_EQ(refused.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_NE(refused.status().message().find("kv_calibration"), std::string::npos)
      << refused.status().ToString();
}

TEST_F(CodedCorpusTest, ATextTooShortToCalibrateOnIsRefused) {
  std::ofstream(options_.calibration_text) << "too short";
  options_.kv_format = "bf16";  // coded, it would be refused at the start
  Restart();
  const auto record = Create("a", Prose(100), "cq4");
  EXPECT_EQ(record.status().code(), StatusCode::kInvalidArgument);
  EXPECT_NE(record.status().message().find("calibration text"), std::string::npos);
}

TEST(KvCalibrationTest, EveryFlippedBitAndEveryCutIsFound) {
  const auto side = [](float seed) {
    KvCoordinateArrays arrays;
    for (auto* values : {&arrays.forward, &arrays.inverse, &arrays.feedback}) {
      values->assign(64 * 64, seed);
    }
    arrays.mean.assign(64, seed);
    arrays.weight.assign(64, 1);
    return arrays;
  };
  const KvCalibration calibration({1, 2, 64}, {side(1), side(2)}, {side(3), side(4)});
  const std::string bytes = calibration.Bytes();
  const auto parsed = KvCalibration::Parse(std::as_bytes(std::span(bytes)));
  ASSERT_TRUE(parsed.ok()) << parsed.status().ToString();
  EXPECT_EQ((*parsed)->digest(), calibration.digest());
  EXPECT_EQ((*parsed)->layer(0)[1].value.forward[0], 4);
  for (size_t i = 0; i < bytes.size(); i += bytes.size() / 97) {
    std::string damaged = bytes;
    damaged[i] = static_cast<char>(damaged[i] ^ 16);
    EXPECT_FALSE(KvCalibration::Parse(std::as_bytes(std::span(damaged))).ok()) << i;
    EXPECT_FALSE(KvCalibration::Parse(std::as_bytes(std::span(bytes).first(i))).ok()) << i;
  }
}

}  // namespace
}  // namespace corpusd
