// Segmented corpora on a CUDA device: what is computed together has the bytes of each alone, and
// answers do not depend on the tier that blocks come from.
#include <gtest/gtest.h>

#include <fstream>

#include "engine/backend/device_backend.h"
#include "store/cuda/cuda_device_memory.h"
#include "tests/unit/engine/segmented_fixture.h"

namespace corpusd {
namespace {

class CudaSegmentedTest : public SegmentedFixture {
 protected:
  void SetUp() override {
    if (CudaDeviceCount() == 0) GTEST_SKIP() << "this host has no CUDA device";
    model_.head_dim = 64;
    options_.device = "cuda:0";
    options_.kv_format = "cq4";
    options_.calibration_dir = folder_.File("calibration");
    options_.calibration_text = folder_.File("text");
    std::ofstream(options_.calibration_text) << Prose(3000, 5);
    auto memory = MakeCudaDeviceMemory(0, uint64_t{64} << 20, &store_options_.device_bytes);
    ASSERT_TRUE(memory.ok()) << memory.status().ToString();
    store_options_.device = std::move(*memory);
    SegmentedFixture::SetUp();
  }

  void IngestCoded(const std::string& name, const std::vector<TestDocument>& documents) {
    auto tokenizer = engine_->NewCorpusTokenizer("", false, 0);
    for (const TestDocument& document : documents) {
      (*tokenizer)->BeginSource(document.path);
      (*tokenizer)->Append(document.text);
      (*tokenizer)->EndSource();
    }
    CorpusRequest request;
    request.name = name;
    request.mode = "segmented";
    const auto record = engine_->CreateCorpus(request, *std::move(tokenizer));
    ASSERT_TRUE(record.ok()) << record.status().ToString();
    Prefill(name);
  }
};

TEST_F(CudaSegmentedTest, WhatIsComputedTogetherHasTheBytesOfEachAlone) {
  std::vector<TestDocument> documents;
  for (int i = 0; i < 40; ++i) {
    documents.push_back({"d" + std::to_string(i), Prose(3 + static_cast<size_t>(i * i), i + 1)});
  }
  IngestCoded("all", documents);
  std::vector<std::string> expected;
  for (size_t i = 0; i < documents.size(); ++i) expected.push_back(BytesOfSource("all", i));
  ASSERT_TRUE(store_->RemoveCorpus("all").ok());
  for (const size_t i : {0u, 1u, 2u, 9u, 22u, 39u}) {
    IngestCoded("one", {documents[i]});
    EXPECT_EQ(BytesOfSource("one", 0), expected[i]) << i;
    ASSERT_TRUE(store_->RemoveCorpus("one").ok());
  }
}

TEST_F(CudaSegmentedTest, AnswersAreTheSameFromEveryTier) {
  std::vector<TestDocument> documents;
  for (int i = 0; i < 30; ++i) documents.push_back({"d" + std::to_string(i), Prose(300, i + 1)});
  IngestCoded("many", documents);
  const auto fresh = Ask("many");
  ASSERT_TRUE(fresh.ok()) << fresh.status().ToString();
  const auto on_device = Ask("many");
  ASSERT_TRUE(on_device.ok());
  EXPECT_GT(on_device->device_bytes, 0u);
  EXPECT_EQ(on_device->host_bytes + on_device->disk_bytes, 0u);
  Restart();
  const auto restarted = Ask("many");
  ASSERT_TRUE(restarted.ok()) << restarted.status().ToString();
  EXPECT_GT(restarted->disk_bytes, 0u);
  EXPECT_EQ(on_device->answer, fresh->answer);
  EXPECT_EQ(restarted->answer, fresh->answer);
  const auto warmed = engine_->WarmDevice("many");
  ASSERT_TRUE(warmed.ok()) << warmed.status().ToString();
  EXPECT_GT(warmed->device_bytes, on_device->device_bytes);
}

}  // namespace
}  // namespace corpusd
