// A model whose weights lie on two CUDA devices against the same on one: hidden states and logits
// bit for bit, prefill and decode, experts included; an engine that stores and answers; what each
// device holds. Skipped where there is one device.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "engine/ranks/tensor_devices.h"
#include "store/base/fault_point.h"
#include "tests/bench/random_model.h"
#include "tests/gpu/two_devices_fixture.h"
#include "tests/support/tiny_model.h"
#include "tests/unit/engine/ranks/model_outcome.h"

namespace corpusd {
namespace {

TensorDevicesOptions Both() {
  TensorDevicesOptions options;
  options.devices = {"cuda:0", "cuda:1"};
  return options;
}

// Of a device's memory, what CUDA has given out.
uint64_t UsedBytes(int device) {
  size_t free = 0, total = 0;
  (void)cudaSetDevice(device);
  (void)cudaMemGetInfo(&free, &total);
  return total - free;
}

// Scout's layers in small: mixtures with a shared expert, chunks, and a layer without positions.
ModelConfig SmallMixture(uint32_t used) {
  ModelConfig c;
  c.name = "small mixture";
  c.architecture = "llama4";
  c.layers = 4;
  c.hidden = 1024;
  c.q_heads = 8;
  c.kv_heads = 2;
  c.head_dim = 128;
  c.feed_forward = c.expert_feed_forward = 512;
  c.vocabulary = 1001;
  c.context_tokens = 8192;
  c.experts = 4;
  c.experts_used = used;
  c.norm_epsilon = 1e-5F;
  c.rope.base = 10000;
  c.rope.dimensions = 128;
  LayerConfig layer;
  layer.experts = true;
  layer.feed_forward = 512;
  c.layer_configs.assign(c.layers, layer);
  c.layer_configs.back().rope = false;
  return c;
}

class CudaTensorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (CudaDeviceCount() < 2) GTEST_SKIP() << CudaDeviceCount() << " devices";
    first_ = *MakeCudaBackend(0, 0);
  }
  void TearDown() override { DisarmFaults(); }

  // Hidden states and logits after prefills and decodes, some of them as graphs.
  static std::vector<float> NumbersOf(const Model& model, Backend& backend, size_t tokens) {
    const ModelConfig& c = model.config();
    const auto scratch = *ForwardScratch::Create(backend, c, static_cast<uint32_t>(tokens));
    const auto memory = *backend.AllocateShared(uint64_t{c.vocabulary} * 4 * 4, "logits");
    const KvFormat format = *model.Format("bf16");
    KvSequence kv(format, format);
    std::vector<float> numbers;
    const auto go_on = [] { return true; };
    std::vector<size_t> calls = {tokens, 40, 9, 3};
    calls.insert(calls.end(), 12, 1);
    for (size_t call = 0; call < calls.size(); ++call) {
      const auto rows = static_cast<uint32_t>(calls[call]);
      const Status status = model.Forward(SomeIds(rows, 3 + call), kv, *scratch, go_on);
      EXPECT_TRUE(status.ok()) << status.ToString();
      std::vector<float> hidden(size_t{rows} * c.hidden);
      EXPECT_TRUE(backend
                      .Copy(reinterpret_cast<std::byte*>(hidden.data()), scratch->hidden->data(),
                            hidden.size() * sizeof(float))
                      .ok());
      numbers.insert(numbers.end(), hidden.begin(), hidden.end());
      const uint32_t wanted = std::min(rows, 4u);
      const MatrixView logits = memory->Matrix(wanted, c.vocabulary);
      EXPECT_TRUE(model.Logits(*scratch, rows - wanted, logits).ok());
      Append(logits, &numbers);
    }
    return numbers;
  }
  void Compare(const ModelSource& source, const std::string& what) {
    std::vector<float> alone;
    {
      const auto model = LoadModel(source, *first_);
      ASSERT_TRUE(model.ok()) << model.status().ToString();
      alone = NumbersOf(**model, *first_, 700);
    }
    const auto devices = TensorDevices::Open(*first_, *first_, Both());
    ASSERT_TRUE(devices.ok()) << devices.status().ToString();
    const auto model = LoadParted(source, **devices);
    ASSERT_TRUE(model.ok()) << model.status().ToString();
    const std::vector<float> shared = NumbersOf(**model, **devices, 700);
    ASSERT_EQ(shared.size(), alone.size());
    size_t others = 0;
    for (size_t i = 0; i < alone.size(); ++i) others += shared[i] == alone[i] ? 0 : 1;
    EXPECT_EQ(others, 0u) << what << ": of " << alone.size();
    EXPECT_NEAR(static_cast<double>((*devices)->weight_bytes(0)) / (*devices)->weight_bytes(1), 1,
                0.05)
        << what;
  }

  const TempDir folder_;
  std::unique_ptr<Backend> first_;
};

TEST_F(CudaTensorTest, ADenseModelHasTheBitsOfOneDevice) {
  for (const uint32_t kv_heads : {1u, 4u}) {
    const std::string path = folder_.File("tiny.gguf");
    WriteTinyModel(path, Heads(8, kv_heads, 256, 512));
    Compare(**OpenModelSource(path), std::to_string(kv_heads) + " KV heads");
  }
}

TEST_F(CudaTensorTest, MixturesOfCodedWeightsHaveTheBitsOfOneDevice) {
  for (const uint32_t used : {1u, 2u}) {
    Compare(*MakeRandomModel(SmallMixture(used)), std::to_string(used) + " experts a token");
  }
}

TEST_F(CudaTensorTest, NothingIsAllocatedOnceShapesAreKnown) {
  const auto devices = *TensorDevices::Open(*first_, *first_, Both());
  const auto source = MakeRandomModel(SmallMixture(1));
  const auto model = *LoadParted(*source, *devices);
  (void)NumbersOf(*model, *devices, 500);
  (void)NumbersOf(*model, *devices, 500);
  const uint64_t before[] = {UsedBytes(0), UsedBytes(1)};
  (void)NumbersOf(*model, *devices, 500);
  constexpr uint64_t kGraphs = uint64_t{4} << 20;  // graphs of steps take some
  for (const int device : {0, 1}) {
    EXPECT_LE(UsedBytes(device), before[device] + kGraphs) << "device " << device;
  }
}

class CudaTensorEngineTest : public TwoDevicesFixture {
 protected:
  void Open(uint32_t devices, const std::string& folder) {
    engine_.reset();
    store_.reset();
    store_options_.data_dir = folder_.File(folder);
    options_.device = "cuda:0";
    options_.ranks.devices.clear();
    options_.ranks.tensor_ranks = devices;
    for (uint32_t d = 0; devices > 1 && d < devices; ++d) {
      options_.ranks.devices.push_back("cuda:" + std::to_string(d));
    }
    store_options_.device = nullptr;
    const DeviceRoom room = *HostDevices()->MakeRoom("cuda:0", uint64_t{256} << 20);
    store_options_.device = room.memory;
    store_options_.device_bytes = room.bytes;
    Restart();
  }
  std::string Answer(const std::string& corpus) {
    const auto report = Ask(corpus);
    EXPECT_TRUE(report.ok()) << report.status().ToString();
    return report.ok() ? report->answer : "";
  }
};

TEST_F(CudaTensorEngineTest, StoresAndAnswersAsOneDevice) {
  for (const char* const format : {"bf16", "cq8"}) {
    Open(1, std::string("alone") + format);
    Ingest("text", Prose(2000), format);
    const std::string bytes = BytesOf("text"), answer = Answer("text");
    Open(2, std::string("two") + format);
    Ingest("text", Prose(2000), format);
    EXPECT_TRUE(BytesOf("text") == bytes) << format;
    EXPECT_EQ(Answer("text"), answer) << format;
    const RanksReport report = engine_->ranks();
    ASSERT_EQ(report.ranks.size(), 2u);
    EXPECT_EQ(report.ranks[1].state, "weights");
    EXPECT_GT(report.ranks[1].weight_bytes, 0u);
    Open(1, std::string("two") + format);  // one device serves what two made
    EXPECT_EQ(Answer("text"), answer) << format;
    Open(2, std::string("alone") + format);
    EXPECT_EQ(Answer("text"), answer) << format;
  }
}

TEST_F(CudaTensorEngineTest, ALaunchThatFailsEndsTheQuestionAndTheNextOneIsAnswered) {
  Open(2, "failing");
  Ingest("text", Prose(500), "bf16");
  const std::string answer = Answer("text");
  ArmFault("device.launch", FaultKind::kIoError, /*after=*/200, /*times=*/1);
  const auto failed = Ask("text");
  EXPECT_EQ(failed.status().code(), StatusCode::kDeviceError) << failed.status().ToString();
  DisarmFaults();
  EXPECT_EQ(Answer("text"), answer);
}

}  // namespace
}  // namespace corpusd
