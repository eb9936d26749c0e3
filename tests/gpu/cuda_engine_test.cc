// The engine on a CUDA device over a store with a device tier: answers do not depend on the tier
// that blocks come from.
#include <gtest/gtest.h>

#include <fstream>

#include "engine/backend/device_backend.h"
#include "store/base/fault_point.h"
#include "store/cuda/cuda_device_memory.h"
#include "tests/unit/engine/engine_fixture.h"

namespace corpusd {
namespace {

class CudaEngineTest : public EngineFixture {
 protected:
  void SetUp() override {
    if (CudaDeviceCount() == 0) GTEST_SKIP() << "this host has no CUDA device";
    model_.head_dim = 64;
    options_.device = "cuda:0";
    options_.calibration_dir = folder_.File("calibration");
    options_.calibration_text = folder_.File("text");
    std::ofstream(options_.calibration_text) << Prose(3000, 5);
    TakeTier(uint64_t{64} << 20);
    EngineFixture::SetUp();
  }

  void TakeTier(uint64_t bytes) {
    auto memory = MakeCudaDeviceMemory(0, bytes, &store_options_.device_bytes);
    ASSERT_TRUE(memory.ok()) << memory.status().ToString();
    store_options_.device = std::move(*memory);
  }
};

TEST_F(CudaEngineTest, AnswersAreTheSameFromEveryTierAndComputedAgain) {
  for (const std::string format : {"bf16", "cq8", "cq4", "cq2"}) {
    Ingest(format, Prose(450), format);
    const auto fresh = Ask(format);
    ASSERT_TRUE(fresh.ok()) << fresh.status().ToString();
    EXPECT_FALSE(fresh->answer.empty());
    const auto on_device = Ask(format);
    ASSERT_TRUE(on_device.ok()) << on_device.status().ToString();
    EXPECT_GT(on_device->device_bytes, 0u) << format;
    EXPECT_EQ(on_device->host_bytes + on_device->disk_bytes, 0u) << format;
    Restart();
    const auto restarted = Ask(format);
    const auto computed = Ask(format, /*no_cache=*/true);
    ASSERT_TRUE(restarted.ok() && computed.ok()) << restarted.status().ToString();
    EXPECT_GT(restarted->disk_bytes, 0u);
    EXPECT_EQ(restarted->recomputed_tokens, 0u);
    EXPECT_EQ(on_device->answer, fresh->answer) << format;
    EXPECT_EQ(restarted->answer, fresh->answer) << format;
    EXPECT_EQ(computed->answer, fresh->answer) << format;
  }
}

// A launch that fails costs the question that it was for; the next one is answered as ever.
TEST_F(CudaEngineTest, AFailedLaunchEndsOneQuestion) {
  Ingest("a", Prose(450), "cq4");
  const auto expected = Ask("a");
  ASSERT_TRUE(expected.ok()) << expected.status().ToString();
  for (const uint64_t after : {3u, 40u, 150u}) {
    ArmFault("device.launch", FaultKind::kIoError, after, 1);
    const auto failed = Ask("a");
    DisarmFaults();
    EXPECT_EQ(failed.status().code(), StatusCode::kDeviceError) << failed.status().ToString();
    const auto next = Ask("a");
    ASSERT_TRUE(next.ok()) << next.status().ToString();
    EXPECT_EQ(next->answer, expected->answer) << "after launch " << after;
  }
}

// A device that does not answer any more is reported once, and the CPU goes on with what is stored.
TEST_F(CudaEngineTest, ALostDeviceIsReportedAndTheCpuGoesOn) {
  Ingest("a", Prose(450), "cq4");
  ASSERT_TRUE(Ask("a").ok());
  int lost = 0;
  options_.on_device_lost = [&](const Status&) { ++lost; };
  Restart();
  ArmFault("device.launch", FaultKind::kIoError, 100, 1);
  ArmFault("device.answer", FaultKind::kIoError, 0, 1);
  EXPECT_EQ(Ask("a").status().code(), StatusCode::kDeviceError);
  DisarmFaults();
  EXPECT_EQ(Ask("a").status().code(), StatusCode::kDeviceError) << "it stays lost";
  EXPECT_EQ(lost, 1);
  options_.device = "cpu";
  Restart();
  const auto answer = Ask("a");
  ASSERT_TRUE(answer.ok()) << answer.status().ToString();
  EXPECT_FALSE(answer->answer.empty());
  EXPECT_EQ(answer->recomputed_tokens, 0u);
}

// A tier that holds only some of the blocks: the others are read from the host for every pass.
TEST_F(CudaEngineTest, ATierThatIsTooSmallCostsTimeButNoBit) {
  Ingest("whole", Prose(450), "cq4");
  const auto expected = Ask("whole");
  ASSERT_TRUE(expected.ok()) << expected.status().ToString();
  const std::string bytes = BytesOf("whole");
  engine_.reset();
  store_.reset();
  TakeTier(3 * store_options_.device_bytes / 1024);  // some of the blocks
  Restart();
  const auto partly = Ask("whole");
  ASSERT_TRUE(partly.ok()) << partly.status().ToString();
  EXPECT_EQ(partly->answer, expected->answer);
  Ingest("again", Prose(450), "cq8");
  EXPECT_TRUE(Ask("again").ok());
  ASSERT_TRUE(store_->RemoveCorpus("whole").ok());
  Ingest("whole", Prose(450), "cq4");
  EXPECT_EQ(BytesOf("whole"), bytes) << "a prefill over pages of the host gives the same blocks";
}

}  // namespace
}  // namespace corpusd
