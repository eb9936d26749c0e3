// Corpora on a CUDA device over models whose layers see chunks or windows, with experts: stored
// prefixes, appends and restarts, as on the CPU (tests/unit/engine/hybrid_parts_test.cc).
#include <gtest/gtest.h>

#include "engine/backend/device_backend.h"
#include "store/cuda/cuda_device_memory.h"
#include "tests/unit/engine/hybrid_fixture.h"

namespace corpusd {
namespace {

class CudaHybridTest : public HybridFixture {
 protected:
  void SetUp() override {
    if (CudaDeviceCount() == 0) GTEST_SKIP() << "this host has no CUDA device";
    families_ = "families_device.jsonl";
    head_dim_ = 64;
    options_.device = "cuda:0";
    auto memory = MakeCudaDeviceMemory(0, uint64_t{64} << 20, &store_options_.device_bytes);
    ASSERT_TRUE(memory.ok()) << memory.status().ToString();
    store_options_.device = std::move(*memory);
  }

  // Every stored byte: blocks, and the parts that are kept of them.
  std::string AllBytesOf(const std::string& name) {
    const CorpusRecord record = *store_->GetCorpus(name);
    std::string bytes = BytesOf(name);
    for (const HeldPart& part : HeldParts(record)) {
      std::vector<std::byte> payload;
      uint32_t sections = 0;
      const Status read = store_->ReadBlock(part.digest, &payload, &sections);
      EXPECT_TRUE(read.ok()) << read.ToString();
      bytes.append(reinterpret_cast<const char*>(payload.data()), payload.size());
    }
    return bytes;
  }
};

const std::vector<HybridModel> kModels = {
    {"llama4 as Scout", 16},        {"llama4 as Scout", 384}, {"llama4 another pattern", 200},
    {"llama4 as Scout", 8192},      {"gemma 3", 150},         {"mistral: a window", 40},
    {"qwen2: a window on the", 129}};

TEST_F(CudaHybridTest, AnswersAreTheSameFromEveryTierAndComputedAgain) {
  int answered = 0;  // some random models end their answer at once
  for (const HybridModel& model : kModels) {
    Start(model);
    for (const std::string format : {"bf16", "cq4"}) {
      for (const size_t length : {90, 700, 1100}) {
        SCOPED_TRACE(testing::Message() << model.family << ", " << model.span << ", " << format
                                        << ", " << length << " tokens");
        const std::string name = format + std::to_string(length);
        IngestIds(name, Ids(length), format);
        const auto fresh = Ask(name), on_device = Ask(name);
        ASSERT_TRUE(fresh.ok() && on_device.ok()) << fresh.status().ToString();
        const auto computed = Ask(name, /*no_cache=*/true);
        Restart();
        const auto restarted = Ask(name);
        ASSERT_TRUE(computed.ok() && restarted.ok()) << restarted.status().ToString();
        answered += fresh->answer.empty() ? 0 : 1;
        EXPECT_EQ(on_device->answer, fresh->answer);
        EXPECT_EQ(computed->answer, fresh->answer);
        EXPECT_EQ(restarted->answer, fresh->answer);
        EXPECT_EQ(restarted->recomputed_tokens, 0u);
      }
    }
  }
  EXPECT_GT(answered, 20);
}

// Calls begin and end elsewhere, and have other numbers of runs.
TEST_F(CudaHybridTest, AnAppendedCorpusIsOneIngest) {
  for (const HybridModel& model : kModels) {
    Start(model);
    const std::vector<TokenId> ids = Ids(5200);
    const auto between = [&](size_t first, size_t end) {
      return std::vector<TokenId>(ids.begin() + static_cast<ptrdiff_t>(first),
                                  ids.begin() + static_cast<ptrdiff_t>(end));
    };
    for (const std::string format : {"bf16", "cq4"}) {
      SCOPED_TRACE(testing::Message() << model.family << ", " << model.span << ", " << format);
      IngestIds("grown", between(0, 500), format);
      for (const auto& [first, end] : {std::pair{500, 1030}, {1030, 1600}, {1600, 5200}}) {
        Restart();
        AppendIds("grown", between(first, end));
      }
      const std::string grown = AllBytesOf("grown");
      ASSERT_TRUE(store_->RemoveCorpus("grown").ok());
      IngestIds("whole", ids, format);
      EXPECT_TRUE(AllBytesOf("whole") == grown);
      ASSERT_TRUE(store_->RemoveCorpus("whole").ok());
    }
  }
}

// The CPU answers over what the device stored.
TEST_F(CudaHybridTest, BlocksOfTheDeviceServeTheCpu) {
  Start({"llama4 as Scout", 384});
  IngestIds("a", Ids(1000));
  ASSERT_TRUE(Ask("a").ok());
  options_.device = "cpu";
  Restart();
  const auto answer = Ask("a");
  ASSERT_TRUE(answer.ok()) << answer.status().ToString();
  EXPECT_EQ(answer->recomputed_tokens, 0u);
}

}  // namespace
}  // namespace corpusd
