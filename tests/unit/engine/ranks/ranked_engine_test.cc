// What ranks make together against what the engine stores: the same blocks under the same digests.
#include <gtest/gtest.h>

#include <mutex>
#include <thread>

#include "engine/ranks/ranked_prefill.h"
#include "tests/unit/engine/hybrid_fixture.h"
#include "tests/unit/engine/ranks/rank_threads.h"
#include "tests/unit/engine/ranks/separate_device.h"

namespace corpusd {
namespace {

class RankedEngineTest : public HybridFixture {
 protected:
  // Blocks by number, their bytes by part of the layers.
  using Blocks = std::map<uint64_t, std::vector<std::vector<std::byte>>>;

  Blocks Together(uint32_t ranks, std::span<const TokenId> ids, uint32_t rank_tokens) {
    std::mutex mutex;
    Blocks blocks;
    RunRanks({TransportKind::kInProcess, ranks}, [&](Transport& transport) {
      const auto local = *MakeCpuBackend({1, "auto"});
      RankedBackend backend(*local, transport);
      const auto model = *LoadModel(*source_, backend);
      KvLayout layout;
      layout.blocks = layout.own = *model->Format("bf16");
      layout.parts = model->parts();
      const auto prefill =
          RankedPrefill::Create(*model, backend, transport, layout, {.rank_tokens = rank_tokens});
      ASSERT_TRUE(prefill.ok()) << prefill.status().ToString();
      const Status status = (*prefill)->Run(ids, 0, [&](const KeptBlock& kept) {
        const std::lock_guard lock(mutex);
        auto& block = blocks[kept.block];
        block.resize(kept.parts.size());
        for (size_t part = 0; part < kept.parts.size(); ++part) {
          if (kept.parts[part].empty()) continue;
          EXPECT_TRUE(block[part].empty()) << "block " << kept.block << " is kept twice";
          block[part].assign(kept.parts[part].begin(), kept.parts[part].end());
        }
        return OkStatus();
      });
      EXPECT_TRUE(status.ok()) << status.ToString();
    });
    return blocks;
  }

  // Every stored block of a corpus, by digest.
  std::map<Digest, std::vector<std::byte>> AllBytes(const CorpusRecord& record) {
    std::map<Digest, std::vector<std::byte>> all;
    for (const Digest& digest : AllDigests(record)) {
      uint32_t sections = 0;
      const Status read = store_->ReadBlock(digest, &all[digest], &sections);
      EXPECT_TRUE(read.ok()) << read.ToString();
    }
    return all;
  }
};

// Over a border of spans: more than 8192 tokens.
TEST_F(RankedEngineTest, BlocksAreThoseThatTheEngineStoresUnderTheirDigests) {
  Start({"llama 3"});
  const auto ids = Ids(8800, 4);
  IngestIds("text", ids);
  const CorpusRecord record = *store_->GetCorpus("text");
  EXPECT_EQ(record.chain, BuildChain(record.root, ids, kBlockTokens));
  const Blocks blocks = Together(3, ids, 1536);
  ASSERT_EQ(blocks.size(), record.chain.size());
  for (const auto& [block, parts] : blocks) {
    std::vector<std::byte> payload;
    uint32_t sections = 0;
    const Status read = store_->ReadBlock(record.chain[block], &payload, &sections);
    ASSERT_TRUE(read.ok()) << read.ToString();
    EXPECT_EQ(parts[0], payload) << "block " << block;
  }
}

struct Spans {
  const char* family;
  uint32_t span;  // of a chunk or a window
  size_t tokens;
};

// Their layers see what their own rank has; the second text ends with a run of few rows within a
// chunk, the first with a part of one.
class RankedChunksTest : public RankedEngineTest, public ::testing::WithParamInterface<Spans> {};

TEST_P(RankedChunksTest, LayersThatSeeAChunkOrAWindowAreThoseOfOneRank) {
  const auto [family, span, tokens] = GetParam();
  Start({family, span});
  const auto ids = Ids(tokens, 5);
  const auto all = KeepAll(ids);
  const auto whole = all->OwnBlocks();
  const uint64_t layer_bytes = Layout().blocks.LayerBytes(0);
  for (const uint32_t ranks : {2u, 3u}) {
    const Blocks blocks = Together(ranks, ids, 1024);
    ASSERT_EQ(blocks.size(), whole.size());
    for (const auto& [block, parts] : blocks) {
      for (uint32_t layer = 0; layer < Layout().blocks.layers; ++layer) {
        const LayerPlace place = own_model_->parts()->places[layer];
        ASSERT_GE(parts[place.part].size(), (place.index + 1) * layer_bytes);
        const auto kept = whole[block].bytes.subspan(layer * layer_bytes, layer_bytes);
        EXPECT_TRUE(std::equal(
            kept.begin(), kept.end(),
            parts[place.part].begin() + static_cast<ptrdiff_t>(place.index * layer_bytes)))
            << "layer " << layer << " of block " << block << ", " << ranks << " ranks";
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Spans, RankedChunksTest,
                         ::testing::Values(Spans{"llama4", 256, 2900},
                                           Spans{"llama4", 1024, 3 * 1024 + 512 + 9},
                                           Spans{"gemma 3", 128, 2900}, Spans{"gemma 3", 200, 2567},
                                           Spans{"gemma 3", 1000, 2900}));

// An engine with ranks as threads: what is stored, parts included, and what follows it.
class HybridRanksTest : public RankedEngineTest,
                        public ::testing::WithParamInterface<std::tuple<HybridModel, const char*>> {
};

TEST_P(HybridRanksTest, ACorpusOfSeveralRanksIsThatOfOne) {
  context_tokens_ = 16384;
  const auto& [model, kind] = GetParam();
  const TestDevices devices(kind);
  Start(model);
  const auto ids = Ids(8192 + 1500, 6), more = Ids(700, 7);
  IngestIds("text", ids);
  const CorpusRecord alone = *store_->GetCorpus("text");
  const auto blocks = AllBytes(alone);
  AppendIds("text", more);
  const CorpusRecord longer = *store_->GetCorpus("text");
  const auto longer_blocks = AllBytes(longer);
  const auto answer = Ask("text");
  ASSERT_TRUE(answer.ok()) << answer.status().ToString();
  for (const uint32_t ranks : {2u, 3u}) {
    SCOPED_TRACE(std::to_string(ranks) + " ranks");
    store_options_.data_dir = folder_.File("ranks" + std::to_string(ranks));
    devices.Use(ranks, &options_, &store_options_);
    Restart();
    while (engine_->ranks().groups == 0) std::this_thread::yield();
    IngestIds("text", ids);
    const CorpusRecord together = *store_->GetCorpus("text");
    EXPECT_EQ(together.chain, alone.chain);
    EXPECT_EQ(together.parts, alone.parts);
    EXPECT_EQ(AllBytes(together), blocks);
    EXPECT_GT(engine_->ranks().passes, 0u);
    AppendIds("text", more);
    EXPECT_EQ(AllBytes(*store_->GetCorpus("text")), longer_blocks);
    const auto theirs = Ask("text");
    ASSERT_TRUE(theirs.ok()) << theirs.status().ToString();
    EXPECT_EQ(theirs->answer, answer->answer);
    EXPECT_EQ(engine_->ranks().lost, 0u);
  }
}

INSTANTIATE_TEST_SUITE_P(Spans, HybridRanksTest,
                         ::testing::Combine(::testing::Values(HybridModel{"llama4", 1024},
                                                              HybridModel{"gemma 3", 512},
                                                              HybridModel{"mistral", 256}),
                                            ::testing::Values("cpu", "device")));

}  // namespace
}  // namespace corpusd
