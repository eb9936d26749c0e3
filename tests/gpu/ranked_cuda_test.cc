// Two CUDA devices that compute a text together, over NCCL, against one of them. Skipped where
// there is one device.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <map>
#include <mutex>
#include <random>
#include <thread>

#include "engine/backend/device_backend.h"
#include "engine/model/model_source.h"
#include "engine/prefill/prefill_runner.h"
#include "engine/ranks/head_tiles.h"
#include "engine/ranks/nccl_transport.h"
#include "engine/ranks/ranked_prefill.h"
#include "engine/ranks/tensor_backend.h"
#include "engine/ranks/tensor_source.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"
#include "tests/unit/engine/plain_calibration.h"

namespace corpusd {
namespace {

using Blocks = std::map<uint64_t, std::vector<std::byte>>;
using Travel = RankedPrefillOptions::Travel;

std::vector<TokenId> SomeIds(size_t count) {
  std::mt19937 random(3);
  std::vector<TokenId> ids;
  for (size_t i = 0; i < count; ++i) ids.push_back(random() % 256 + 3);
  return ids;
}

// A model on one device, alone or as a rank.
struct RankDevice {
  RankDevice(const std::string& path, const std::string& format, int index, Transport* transport,
             std::span<const TokenId> ids) {
    local = *MakeCudaBackend(index, 1);
    if (transport != nullptr) ranked = std::make_unique<RankedBackend>(*local, *transport);
    model = *LoadModel(**OpenModelSource(path), backend());
    layout.blocks = *model->Format(format);
    layout.own = *model->Format("bf16");
    if (!IsCoded(layout.blocks)) return;
    calibration = PlainCalibration(
        {layout.blocks.layers, layout.blocks.kv_heads, layout.blocks.head_dim}, 0.1);
    layout.calibration = calibration.get();
    layout.sinks =
        *ComputeSinks({*model, backend(), gate}, ids, layout, ComputePriority::kPrefill, {});
  }
  Backend& backend() { return ranked == nullptr ? *local : *ranked; }
  std::vector<std::byte> ToHost(std::span<const std::byte> bytes) {
    std::vector<std::byte> host(bytes.size());
    EXPECT_TRUE(local->Copy(host.data(), bytes.data(), bytes.size()).ok());
    return host;
  }
  // The logits of a question of 20 tokens and of two more.
  std::vector<float> Answer(KvSequence& kv) {
    const std::vector<TokenId> question = SomeIds(22);
    const uint32_t vocabulary = model->config().vocabulary;
    const auto scratch = *ForwardScratch::Create(backend(), model->config(), 20);
    const auto memory = *backend().AllocateShared(uint64_t{vocabulary} * 4, "logits");
    const MatrixView logits = memory->Matrix(1, vocabulary);
    std::vector<float> all;
    for (size_t first = 0; first < question.size();) {
      const size_t count = first == 0 ? 20 : 1;
      const Status status = model->Forward(std::span(question).subspan(first, count), kv, *scratch,
                                           [] { return true; });
      EXPECT_TRUE(status.ok()) << status.ToString();
      first += count;
      EXPECT_TRUE(model->Logits(*scratch, static_cast<uint32_t>(count - 1), logits).ok());
      all.insert(all.end(), logits.data, logits.data + vocabulary);
    }
    return all;
  }

  std::unique_ptr<Backend> local;
  std::unique_ptr<RankedBackend> ranked;
  std::unique_ptr<Model> model;
  std::unique_ptr<KvCalibration> calibration;
  ComputeGate gate;
  KvLayout layout;
};

struct Made {
  Blocks blocks;
  std::vector<float> answer;
};

class RankedCudaTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices < 2) GTEST_SKIP() << devices;
    TinyModelOptions options;
    options.q_heads = 8;
    options.kv_heads = 2;
    options.head_dim = 64;
    options.context_tokens = 16384;
    path_ = folder_.File("tiny.gguf");
    WriteTinyModel(path_, options);
  }

  // body(rank, transport) in a thread a device.
  static void RunRanks(const std::function<void(uint32_t, Transport&)>& body) {
    const NcclJobId id = *MakeNcclJobId();
    std::vector<std::jthread> threads;
    for (uint32_t r = 0; r < 2; ++r) {
      threads.emplace_back([&, r] {
        NcclJob job;
        job.id = id;
        job.rank = r;
        job.size = 2;
        job.device = static_cast<int>(r);
        const auto transport = JoinNcclJob(job);
        ASSERT_TRUE(transport.ok()) << transport.status().ToString();
        body(r, **transport);
      });
    }
  }

  Made Alone(std::span<const TokenId> ids) {
    RankDevice device(path_, GetParam(), 0, nullptr, ids);
    Made made;
    std::vector<std::unique_ptr<KvSequence>> runs;
    std::vector<const std::byte*> pages;
    const auto share = [&](KvSequence& kv) {
      for (size_t i = 0; i < pages.size(); ++i) {
        kv.AddShared(pages[i], static_cast<uint32_t>(std::min<uint64_t>(
                                   kBlockTokens, ids.size() - i * kBlockTokens)));
      }
    };
    for (size_t first = 0; first < ids.size(); first += kRunTokens) {
      runs.push_back(std::make_unique<KvSequence>(device.layout.OfBlocks()));
      share(*runs.back());
      const auto run = ids.subspan(first, std::min<size_t>(kRunTokens, ids.size() - first));
      const auto scratch = *ForwardScratch::Create(device.backend(), device.model->config(),
                                                   static_cast<uint32_t>(run.size()));
      const Status status = ComputeRun({*device.model, device.backend(), device.gate}, run,
                                       *runs.back(), *scratch, ComputePriority::kPrefill, {});
      EXPECT_TRUE(status.ok()) << status.ToString();
      for (const auto& own : runs.back()->OwnBlocks()) {
        made.blocks[pages.size()] = device.ToHost(own.bytes);
        pages.push_back(own.bytes.data());
      }
    }
    KvSequence question(device.layout);
    share(question);
    made.answer = device.Answer(question);
    return made;
  }

  Made Together(std::span<const TokenId> ids, Travel travel) {
    std::mutex mutex;
    Made made;
    RunRanks([&](uint32_t rank, Transport& transport) {
      RankDevice device(path_, GetParam(), static_cast<int>(rank), &transport, ids);
      const auto prefill =
          *RankedPrefill::Create(*device.model, *device.ranked, transport, device.layout,
                                 {.rank_tokens = 1024, .travel = travel});
      const Status status = prefill->Run(ids, 0, [&](const KeptBlock& kept) {
        auto host = device.ToHost(kept.parts[0]);
        const std::lock_guard lock(mutex);
        EXPECT_TRUE(made.blocks.try_emplace(kept.block, std::move(host)).second) << kept.block;
        return OkStatus();
      });
      EXPECT_TRUE(status.ok()) << status.ToString();
      const auto kv = prefill->QuestionSequence(ids.size());
      const auto answer = device.Answer(*kv);
      const std::lock_guard lock(mutex);
      if (made.answer.empty()) made.answer = answer;
      EXPECT_EQ(answer, made.answer) << "ranks differ";
    });
    return made;
  }

  // A text of 300 tokens and a question of 20 and 1: hidden states and logits; the text's blocks.
  static Made RunModel(const Model& model, Backend& backend, const KvLayout& layout) {
    Made made;
    const ModelConfig& c = model.config();
    const auto scratch = *ForwardScratch::Create(backend, c, 300);
    const auto memory = *backend.AllocateShared(uint64_t{c.vocabulary} * 4, "logits");
    const MatrixView logits = memory->Matrix(1, c.vocabulary);
    KvSequence kv(layout.OfBlocks());
    for (const uint32_t rows : {300u, 20u, 1u}) {
      const Status status = model.Forward(SomeIds(rows), kv, *scratch, [] { return true; });
      EXPECT_TRUE(status.ok()) << status.ToString();
      std::vector<float> hidden(size_t{rows} * c.hidden);
      EXPECT_TRUE(backend
                      .Copy(reinterpret_cast<std::byte*>(hidden.data()), scratch->hidden->data(),
                            hidden.size() * sizeof(float))
                      .ok());
      made.answer.insert(made.answer.end(), hidden.begin(), hidden.end());
      EXPECT_TRUE(model.Logits(*scratch, rows - 1, logits).ok());
      made.answer.insert(made.answer.end(), logits.data, logits.data + c.vocabulary);
    }
    for (const auto& own : kv.OwnBlocks()) {
      auto& block = made.blocks[made.blocks.size()];
      block.resize(own.bytes.size());
      EXPECT_TRUE(backend.Copy(block.data(), own.bytes.data(), block.size()).ok());
    }
    return made;
  }

  TempDir folder_;
  std::string path_;
};

TEST_P(RankedCudaTest, WeightsOfTwoDevicesHaveTheBitsOfOne) {
  if (std::string(GetParam()) != "bf16") GTEST_SKIP() << "one format is enough";
  const auto source = *OpenModelSource(path_);
  const auto layout_of = [](const Model& model) {
    KvLayout layout;
    layout.blocks = layout.own = *model.Format("bf16");
    return layout;
  };
  const auto backend = *MakeCudaBackend(0, 1);
  const auto model = *LoadModel(*source, *backend);
  const KvLayout layout = layout_of(*model);
  const Made alone = RunModel(*model, *backend, layout);
  RunRanks([&](uint32_t rank, Transport& transport) {
    const auto share = *TensorShare::Make(source->config(), rank, 2);
    const auto local = *MakeCudaBackend(static_cast<int>(rank), 1);
    TensorBackend dealt(*local, transport, share);
    const auto part = *LoadModel(*MakeTensorSource(*source, share), dealt);
    const Made made = RunModel(*part, dealt, layout_of(*part));
    EXPECT_EQ(made.answer, alone.answer) << "rank " << rank;
    for (const auto& [block, bytes] : made.blocks) {
      std::vector<std::byte> expected(bytes.size());
      TakeHeads(expected, alone.blocks.at(block), layout.blocks, share.kv_heads());
      EXPECT_EQ(bytes, expected) << "rank " << rank << " block " << block;
    }
  });
}

TEST_P(RankedCudaTest, OneSpanIsTheBytesOfOneDevice) {
  const auto ids = SomeIds(3000);
  const Made alone = Alone(ids);
  for (const Travel travel : {Travel::kKeys, Travel::kQueries}) {
    const Made together = Together(ids, travel);
    EXPECT_EQ(together.blocks, alone.blocks);
    EXPECT_EQ(together.answer, alone.answer);
  }
}

// Longer texts are merged in another order than one device takes them.
TEST_P(RankedCudaTest, SeveralSpansAreNearAndTheSameHoweverTheyTravel) {
  const auto ids = SomeIds(12000);
  const Made alone = Alone(ids);
  const Made keys = Together(ids, Travel::kKeys);
  const Made queries = Together(ids, Travel::kQueries);
  EXPECT_EQ(keys.blocks, queries.blocks);
  EXPECT_EQ(keys.answer, queries.answer);
  ASSERT_EQ(keys.blocks.size(), alone.blocks.size());
  ASSERT_EQ(keys.answer.size(), alone.answer.size());
  for (size_t i = 0; i < alone.answer.size(); ++i) {
    EXPECT_NEAR(keys.answer[i], alone.answer[i], 0.25) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, RankedCudaTest, ::testing::Values("bf16", "cq4"));

}  // namespace
}  // namespace corpusd
