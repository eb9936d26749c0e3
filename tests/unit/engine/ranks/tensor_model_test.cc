// A model whose weights are dealt to several ranks against the same on one device: hidden states,
// logits and stored keys and values, bit for bit.
#include <gtest/gtest.h>

#include <mutex>
#include <random>

#include "engine/backend/cpu_backend.h"
#include "engine/ranks/head_tiles.h"
#include "engine/ranks/tensor_backend.h"
#include "engine/ranks/tensor_source.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"
#include "tests/unit/engine/hybrid_fixture.h"
#include "tests/unit/engine/plain_calibration.h"
#include "tests/unit/engine/ranks/model_outcome.h"
#include "tests/unit/engine/ranks/rank_threads.h"

namespace corpusd {
namespace {

struct DealtModel {
  TinyModelOptions options;
  std::vector<RankJob> jobs;
};

// More ranks than KV heads, as many, and fewer; a number that is no power of two.
std::vector<DealtModel> DealtModels() {
  constexpr auto kThreads = TransportKind::kInProcess;
  constexpr auto kTcp = TransportKind::kTcp;
  return {{Heads(8, 4, 128, 256), {{kThreads, 2}, {kThreads, 4}, {kThreads, 8}, {kTcp, 2}}},
          {Heads(6, 3, 96, 192), {{kThreads, 3}, {kThreads, 6}, {kTcp, 3}}},
          {Heads(4, 1, 64, 96), {{kThreads, 2}, {kThreads, 4}, {kTcp, 4}}}};
}

TEST(TensorModelTest, AnyNumberOfRanksHasTheBitsOfOne) {
  const TempDir folder;
  for (const DealtModel& dealt : DealtModels()) {
    const std::string path = folder.File("tiny.gguf");
    WriteTinyModel(path, dealt.options);
    const auto source = *OpenModelSource(path);
    for (const char* const format : {"bf16", "cq4"}) {
      const auto layout_of = [&](const Model& model, const KvCalibration* calibration) {
        KvLayout layout;
        layout.blocks = *model.Format(format);
        layout.own = *model.Format("bf16");
        if (IsCoded(layout.blocks)) layout.calibration = calibration;
        return layout;
      };
      const auto backend = *MakeCpuBackend({.threads = 1});
      const auto model = *LoadModel(*source, *backend);
      const KvFormat whole = *model->Format(format);
      const auto calibration =
          PlainCalibration({whole.layers, whole.kv_heads, whole.head_dim}, 0.1);
      const Outcome alone = RunModel(*model, *backend, layout_of(*model, calibration.get()), 300);
      for (const RankJob& job : dealt.jobs) {
        SCOPED_TRACE(NameOf(job) + " " + format);
        RunRanks(job, [&](Transport& transport) {
          const auto share =
              *TensorShare::Make(source->config(), transport.rank(), transport.size());
          const auto local = *MakeCpuBackend({.threads = 1});
          TensorBackend dealt_backend(*local, transport, share);
          const auto part = *LoadModel(*MakeTensorSource(*source, share), dealt_backend);
          const auto heads = calibration->OfHeads(share.kv_heads().first, share.kv_heads().count);
          const Outcome outcome =
              RunModel(*part, dealt_backend, layout_of(*part, heads.get()), 300);
          EXPECT_EQ(outcome.numbers, alone.numbers) << "rank " << transport.rank();
          ASSERT_EQ(outcome.blocks.size(), alone.blocks.size());
          for (size_t i = 0; i < alone.blocks.size(); ++i) {
            Bytes expected(outcome.blocks[i].size());
            TakeHeads(expected, alone.blocks[i], whole, share.kv_heads());
            EXPECT_EQ(outcome.blocks[i], expected) << "rank " << transport.rank() << " block " << i;
          }
        });
      }
    }
  }
}

class TensorFamiliesTest : public HybridFixture {
 protected:
  void Compare(const char* family, uint32_t span, uint32_t ranks) {
    Start({family, span});
    const KvLayout layout = Layout();
    const Outcome alone = RunShort(*own_model_, *backend_, layout);
    RunRanks({TransportKind::kInProcess, ranks}, [&](Transport& transport) {
      const auto share = *TensorShare::Make(source_->config(), transport.rank(), transport.size());
      const auto local = *MakeCpuBackend({.threads = 1});
      TensorBackend backend(*local, transport, share);
      const auto part = *LoadModel(*MakeTensorSource(*source_, share), backend);
      KvLayout own = layout;
      own.blocks = own.own = *part->Format("bf16");
      EXPECT_EQ(RunShort(*part, backend, own).numbers, alone.numbers)
          << family << ", rank " << transport.rank() << " of " << ranks;
    });
  }
};

TEST_F(TensorFamiliesTest, ExpertsBiasesWindowsAndChunksAreDealtAsWell) {
  Compare("llama4 as Scout", 128, 2);
  Compare("llama4 interleaved", 128, 4);  // two experts a token; more ranks than KV heads
  Compare("llama4 tied output, biases", 128, 2);
  Compare("qwen2: biases", 0, 2);
  Compare("gemma 3", 128, 4);
}

TEST(TensorModelTest, ARankHoldsItsPartOfTheWeights) {
  const TempDir folder;
  const std::string path = folder.File("tiny.gguf");
  WriteTinyModel(path, Heads(8, 8, 512, 1024));
  const auto source = *OpenModelSource(path);
  const auto bytes_held = [&](uint32_t ranks) {
    std::mutex mutex;
    std::vector<uint64_t> held;
    RunRanks({TransportKind::kInProcess, ranks}, [&](Transport& transport) {
      const auto share = *TensorShare::Make(source->config(), transport.rank(), transport.size());
      const auto local = *MakeCpuBackend({.threads = 1});
      TensorBackend backend(*local, transport, share);
      const auto model = *LoadModel(*MakeTensorSource(*source, share), backend);
      const std::lock_guard lock(mutex);
      held.push_back(backend.weight_bytes());
    });
    return held;
  };
  const auto whole = static_cast<double>(bytes_held(1).front());
  for (const uint32_t ranks : {2u, 4u, 8u}) {
    for (const uint64_t bytes : bytes_held(ranks)) {
      EXPECT_NEAR(static_cast<double>(bytes) * ranks / whole, 1, 0.02) << ranks << " ranks";
    }
  }
}

TEST(TensorModelTest, ALostRankEndsTheJobByItsName) {
  const TempDir folder;
  const std::string path = folder.File("tiny.gguf");
  WriteTinyModel(path, Heads(8, 4, 128, 256));
  const auto source = *OpenModelSource(path);
  RunRanks({TransportKind::kTcp, 2}, [&](Transport& transport) {
    const auto share = *TensorShare::Make(source->config(), transport.rank(), transport.size());
    const auto local = *MakeCpuBackend({.threads = 1});
    TensorBackend backend(*local, transport, share);
    const auto model = *LoadModel(*MakeTensorSource(*source, share), backend);
    const auto scratch = *ForwardScratch::Create(backend, model->config(), 40);
    const KvFormat format = *model->Format("bf16");
    KvSequence kv(format, format);
    Status status;
    for (int call = 0; call < 3 && status.ok(); ++call) {
      if (call == 1 && transport.rank() == 1) return;
      status = model->Forward(SomeIds(40, 1), kv, *scratch, [] { return true; });
    }
    EXPECT_EQ(status.code(), StatusCode::kUnavailable) << status.ToString();
    EXPECT_NE(status.message().find("rank 1 of 2"), std::string::npos) << status.ToString();
  });
}

TEST(TensorShareTest, WhatCannotBeDealtEvenlyIsRefused) {
  ModelConfig config;
  config.layers = 1;
  config.q_heads = 9;
  config.kv_heads = 3;
  config.head_dim = 64;
  config.hidden = 576;
  config.feed_forward = 1536;
  config.vocabulary = 49152;
  config.layer_configs.resize(1);
  config.layer_configs[0].feed_forward = 1536;
  EXPECT_TRUE(TensorShare::Make(config, 0, 3).ok());
  EXPECT_TRUE(TensorShare::Make(config, 8, 9).status().message().find("1536 inner numbers") !=
              std::string::npos);
  EXPECT_EQ(TensorShare::Make(config, 0, 2).status().message(),
            "the weights cannot be dealt to 2 ranks: the model has 9 query heads, which is no "
            "multiple of 2");
  config.q_heads = 12;
  EXPECT_EQ(TensorShare::Make(config, 0, 4).status().message(),
            "the weights cannot be dealt to 4 ranks: the model has 3 KV heads, and neither number "
            "is a multiple of the other");
  config.experts = 16;
  EXPECT_EQ(TensorShare::Make(config, 0, 3).status().message(),
            "the weights cannot be dealt to 3 ranks: the model has 16 experts, which is no "
            "multiple of 3");
}

TEST(TensorShareTest, PartsOfAllRanksAreTheWhole) {
  ModelConfig config;
  config.q_heads = 32;
  config.kv_heads = 4;
  config.head_dim = 64;
  config.hidden = 1024;
  config.vocabulary = 1001;
  config.experts = 16;
  uint32_t tokens = 0, experts = 0, keepers = 0;
  for (uint32_t rank = 0; rank < 8; ++rank) {
    const TensorShare share = *TensorShare::Make(config, rank, 8);
    EXPECT_EQ(share.config().q_heads, 4u);
    EXPECT_EQ(share.kv_heads().first, rank / 2);
    EXPECT_EQ(share.RowsOf("blk.0.attn_q.weight", 2048).first, rank * 256);
    EXPECT_EQ(share.RowsOf("blk.0.attn_k.weight", 256).first, rank / 2 * 64);
    EXPECT_EQ(share.VocabularyOf(rank).first, tokens);
    EXPECT_EQ(share.ExpertsOf(rank).first, experts);
    tokens += share.VocabularyOf(rank).count;
    experts += share.ExpertsOf(rank).count;
    keepers += share.KeepsKvHeads() ? 1 : 0;
  }
  EXPECT_EQ(tokens, 1001u);
  EXPECT_EQ(experts, 16u);
  EXPECT_EQ(keepers, 4u);
}

}  // namespace
}  // namespace corpusd
