// Tensor parallelism over devices, with CPUs in their place: bits of one device, what each holds,
// what is refused, and a device that fails.
#include "engine/ranks/tensor_devices.h"

#include <gtest/gtest.h>

#include <atomic>

#include "engine/backend/cpu_backend.h"
#include "engine/model/model_source.h"
#include "engine/ranks/parted_weight.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"
#include "tests/unit/engine/hybrid_fixture.h"
#include "tests/unit/engine/plain_calibration.h"
#include "tests/unit/engine/ranks/model_outcome.h"

namespace corpusd {
namespace {

TensorDevicesOptions Cpus(uint32_t count) {
  TensorDevicesOptions options;
  options.devices.assign(count, "cpu");
  options.cpu = {.threads = 1};
  return options;
}

class TensorDevicesTest : public ::testing::Test {
 protected:
  void Write(const TinyModelOptions& options) {
    path_ = folder_.File("tiny.gguf");
    WriteTinyModel(path_, options);
    source_ = *OpenModelSource(path_);
  }
  std::unique_ptr<TensorDevices> Open(Backend& first, uint32_t count) {
    auto devices = TensorDevices::Open(first, first, Cpus(count));
    EXPECT_TRUE(devices.ok()) << devices.status().ToString();
    return *std::move(devices);
  }

  const TempDir folder_;
  std::string path_;
  std::unique_ptr<ModelSource> source_;
  const std::unique_ptr<Backend> first_ = *MakeCpuBackend({.threads = 1});
};

// KV heads need not be dealt: more devices than there are, and numbers that are no power of two.
TEST_F(TensorDevicesTest, AnyNumberHasTheBitsOfOne) {
  struct Case {
    TinyModelOptions options;
    std::vector<uint32_t> counts;
  };
  for (const auto& [options, counts] :
       {Case{Heads(8, 4, 128, 256), {2, 4, 8}}, Case{Heads(6, 3, 96, 192), {2, 3}},
        Case{Heads(4, 1, 64, 96), {2, 4}}}) {
    Write(options);
    for (const char* const format : {"bf16", "cq4"}) {
      const auto alone = *LoadModel(*source_, *first_);
      KvLayout layout;
      layout.blocks = *alone->Format(format);
      layout.own = *alone->Format("bf16");
      const auto calibration = PlainCalibration(
          {layout.blocks.layers, layout.blocks.kv_heads, layout.blocks.head_dim}, 0.1);
      if (IsCoded(layout.blocks)) layout.calibration = calibration.get();
      const Outcome expected = RunModel(*alone, *first_, layout, 300);
      for (const uint32_t count : counts) {
        const auto devices = Open(*first_, count);
        const auto model = LoadParted(*source_, *devices);
        ASSERT_TRUE(model.ok()) << model.status().ToString();
        const Outcome outcome = RunModel(**model, *devices, layout, 300);
        EXPECT_EQ(outcome.numbers, expected.numbers) << count << " devices, " << format;
        EXPECT_EQ(outcome.blocks, expected.blocks) << count << " devices, " << format;
      }
    }
  }
}

class TensorDevicesFamiliesTest : public HybridFixture {
 protected:
  void Compare(const char* family, uint32_t span, uint32_t count) {
    Start({family, span});
    const Outcome alone = RunShort(*own_model_, *backend_, Layout());
    const auto devices = TensorDevices::Open(*backend_, *backend_, Cpus(count));
    ASSERT_TRUE(devices.ok()) << devices.status().ToString();
    const auto model = LoadParted(*source_, **devices);
    ASSERT_TRUE(model.ok()) << family << ": " << model.status().ToString();
    EXPECT_EQ(RunShort(**model, **devices, Layout()).numbers, alone.numbers)
        << family << " on " << count;
  }
};

TEST_F(TensorDevicesFamiliesTest, ExpertsBiasesWindowsAndChunks) {
  Compare("llama4 as Scout", 128, 2);
  Compare("llama4 interleaved", 128, 2);  // two experts a token
  Compare("llama4 tied output, biases", 128, 2);
  Compare("qwen2: biases", 0, 2);
  Compare("gemma 3", 128, 2);
}

TEST_F(TensorDevicesTest, EachHoldsItsPartOfTheWeights) {
  Write(Heads(8, 8, 512, 1024));
  const auto bytes_of = [&](uint32_t count) {
    const auto devices = Open(*first_, count);
    const auto model = *LoadParted(*source_, *devices);
    std::vector<double> bytes;
    for (uint32_t d = 0; d < count; ++d) {
      bytes.push_back(static_cast<double>(devices->weight_bytes(d)));
    }
    return bytes;
  };
  const auto two = bytes_of(2);
  EXPECT_NEAR(two[0] / two[1], 1, 0.01);
  for (const uint32_t count : {4u, 8u}) {
    for (const double bytes : bytes_of(count)) {
      EXPECT_NEAR(bytes * count / (two[0] + two[1]), 1, 0.04) << count;
    }
  }
}

// No row of another device's part is read, so none is sent to the device.
TEST_F(TensorDevicesTest, ADeviceIsGivenItsOwnRowsAlone) {
  const std::vector<std::byte> bytes(size_t{24} * 32 * 4);
  const std::vector<WeightSource> qkv = {
      {"blk.0.attn_q.weight", WeightType::kF32, 16, 32, std::span(bytes).first(16 * 128)},
      {"blk.0.attn_k.weight", WeightType::kF32, 8, 32, std::span(bytes).first(8 * 128)}};
  const auto weight = *PartedWeight::Plan(qkv, 2);
  EXPECT_EQ(weight->use(), PartedUse::kToFirst);
  const auto own = weight->SourcesOf(1, qkv);
  ASSERT_EQ(own.size(), 2u);
  EXPECT_EQ(own[0].bytes.data(), bytes.data() + 8 * 128);
  EXPECT_EQ(own[0].bytes.size(), 8u * 128);
  EXPECT_EQ(own[1].rows, 4u);
  const auto pieces = weight->PiecesOf(1);
  EXPECT_EQ(pieces[1].from, 8u);
  EXPECT_EQ(pieces[1].to, 20u);
  EXPECT_EQ(weight->CountOf(1), 12u);
  // A table has a row of zeros.
  const WeightSource table{"token_embd.weight", WeightType::kF32, 7, 32,
                           std::span(bytes).first(7 * 128)};
  const auto parted = *PartedWeight::Plan({&table, 1}, 2);
  EXPECT_EQ(parted->CountOf(0) + parted->CountOf(1), 7u);
  EXPECT_EQ(parted->SourcesOf(0, {&table, 1}).back().rows, 1u);
}

TEST_F(TensorDevicesTest, WhatCannotBeDealtIsRefusedByName) {
  Write(Heads(8, 4, 128, 256));
  const auto devices = Open(*first_, 3);
  const Status refused = LoadParted(*source_, *devices).status();
  EXPECT_EQ(refused.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(refused.message(),
            "the weights cannot be dealt to 3 devices: tensor 'blk.0.attn_q.weight' has 512 "
            "outputs, which is no multiple of 12");
  EXPECT_EQ(TensorDevices::Open(*first_, *first_, Cpus(1)).status().message(),
            "1 devices cannot share weights: 2 to 8 can");
}

TEST_F(TensorDevicesTest, APassThatIsStoppedLeavesNothingUnderWay) {
  Write(Heads(8, 4, 128, 256));
  const auto devices = Open(*first_, 2);
  const auto model = *LoadParted(*source_, *devices);
  const auto scratch = *ForwardScratch::Create(*devices, model->config(), 40);
  const KvFormat format = *model->Format("bf16");
  for (int stop_at = 0; stop_at < 2; ++stop_at) {
    KvSequence kv(format, format);
    int layer = 0;
    const Status stopped =
        model->Forward(SomeIds(40, 1), kv, *scratch, [&] { return layer++ < stop_at; });
    EXPECT_EQ(stopped.code(), StatusCode::kCancelled) << stopped.ToString();
  }
  KvSequence kv(format, format);
  EXPECT_TRUE(model->Forward(SomeIds(40, 1), kv, *scratch, [] { return true; }).ok());
}

// Fails once, when told to.
class FailingBackend final : public ForwardingBackend {
 public:
  FailingBackend(std::unique_ptr<Backend> own, std::atomic<bool>& fails)
      : ForwardingBackend(*own), own_(std::move(own)), fails_(fails) {}
  Status Synchronize() override {
    RETURN_IF_ERROR(local_.Synchronize());
    return fails_.exchange(false) ? Status(StatusCode::kDeviceError, "it burns") : OkStatus();
  }

 private:
  const std::unique_ptr<Backend> own_;
  std::atomic<bool>& fails_;
};

class FailingDevices final : public DeviceSource {
 public:
  Result<std::unique_ptr<Backend>> MakeBackend(const std::string& device,
                                               const CpuBackendOptions& cpu,
                                               DeviceLost on_lost) override {
    ASSIGN_OR_RETURN(auto own, corpusd::MakeBackend(device, cpu, std::move(on_lost)));
    return std::unique_ptr<Backend>(std::make_unique<FailingBackend>(std::move(own), fails));
  }
  Result<DeviceRoom> MakeRoom(const std::string& /*device*/, uint64_t /*bytes*/) override {
    return DeviceRoom{};
  }
  Result<std::unique_ptr<Transport>> Connect(Transport& /*control*/, const std::string& /*device*/,
                                             std::chrono::milliseconds /*timeout*/) override {
    return std::unique_ptr<Transport>();
  }

  std::atomic<bool> fails{false};
};

TEST_F(TensorDevicesTest, ADeviceThatFailsEndsThePassAndTheNextOneBeginsAnew) {
  Write(Heads(8, 4, 128, 256));
  const auto source = std::make_shared<FailingDevices>();
  TensorDevicesOptions options = Cpus(2);
  options.source = source;
  const auto devices = *TensorDevices::Open(*first_, *first_, options);
  const auto model = *LoadParted(*source_, *devices);
  const auto scratch = *ForwardScratch::Create(*devices, model->config(), 40);
  const KvFormat format = *model->Format("bf16");
  const auto pass = [&] {
    KvSequence kv(format, format);
    return model->Forward(SomeIds(40, 1), kv, *scratch, [] { return true; });
  };
  EXPECT_TRUE(pass().ok());
  source->fails = true;
  const Status failed = pass();
  EXPECT_EQ(failed.code(), StatusCode::kDeviceError) << failed.ToString();
  EXPECT_NE(failed.message().find("it burns"), std::string::npos) << failed.ToString();
  const Status again = pass();
  EXPECT_TRUE(again.ok()) << again.ToString();
}

}  // namespace
}  // namespace corpusd
