#include "tests/bench/ranks_tensor.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <nlohmann/json.hpp>

#include "engine/model/hf_config.h"
#include "engine/model/model.h"
#include "engine/ranks/tensor_devices.h"
#include "tests/bench/random_model.h"
#include "tests/bench/rank_devices.h"
#include "tests/bench/scout_shape.h"

namespace corpusd {
namespace {

using Json = nlohmann::json;
constexpr int kPrefills = 4, kSteps = 40, kUncounted = 4;  // a graph is made at the second step
constexpr uint32_t kTogether = 16;                         // questions

Json Milliseconds(const std::vector<double>& seconds) {
  const auto [low, high] = std::minmax_element(seconds.begin(), seconds.end());
  return {{"median", Median(seconds) * 1e3}, {"min", *low * 1e3}, {"max", *high * 1e3}};
}
template <typename Body>
double SecondsOf(const Body& body) {
  const auto begin = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

struct Measured {
  std::vector<double> prefill, step, step_of_16;
  std::vector<float> logits;  // of the prefill's last row and of every step
};

Measured Compute(const Model& model, Backend& backend, uint32_t rows) {
  const ModelConfig& c = model.config();
  Measured measured;
  const auto scratch = Require(ForwardScratch::Create(backend, c, rows));
  const auto memory = Require(backend.AllocateShared(uint64_t{c.vocabulary} * 4, "logits"));
  const MatrixView logits = memory->Matrix(1, c.vocabulary);
  const KvFormat format = Require(model.Format("bf16"));
  KvLayout layout;
  layout.blocks = layout.own = format;
  layout.parts = model.parts();
  std::vector<TokenId> ids(rows);
  for (uint32_t i = 0; i < rows; ++i) ids[i] = i * 7919 % c.vocabulary;
  const auto go_on = [] { return true; };
  const auto keep = [&] {
    measured.logits.insert(measured.logits.end(), logits.data, logits.data + logits.cols);
  };
  std::unique_ptr<KvSequence> kv;
  for (int i = 0; i < kPrefills; ++i) {
    kv = std::make_unique<KvSequence>(layout);
    const double seconds = SecondsOf([&] { Require(model.Forward(ids, *kv, *scratch, go_on)); });
    if (i > 0) measured.prefill.push_back(seconds);
  }
  Require(model.Logits(*scratch, rows - 1, logits));
  keep();
  KvSequence* const sequence = kv.get();
  for (int i = 0; i < kSteps; ++i) {
    const TokenId id = static_cast<TokenId>(i) * 7919 % c.vocabulary;
    const double seconds = SecondsOf([&] {
      Require(model.ForwardEach({&id, 1}, {&sequence, 1}, *scratch, go_on));
      Require(model.Logits(*scratch, 0, logits));
    });
    if (i >= kUncounted) measured.step.push_back(seconds);
    keep();
  }
  // Several questions together, each behind some tokens of its own.
  std::vector<std::unique_ptr<KvSequence>> texts;
  std::vector<KvSequence*> each;
  for (uint32_t q = 0; q < kTogether; ++q) {
    texts.push_back(std::make_unique<KvSequence>(layout));
    Require(model.Forward(std::span(ids).subspan(q, 256), *texts.back(), *scratch, go_on));
    each.push_back(texts.back().get());
  }
  for (int i = 0; i < kSteps; ++i) {
    const auto next = std::span(ids).subspan(static_cast<size_t>(i) * kTogether, kTogether);
    const double seconds =
        SecondsOf([&] { Require(model.ForwardEach(next, each, *scratch, go_on)); });
    if (i >= kUncounted) measured.step_of_16.push_back(seconds);
  }
  Require(model.Logits(*scratch, kTogether - 1, logits));
  keep();
  return measured;
}

// The exchanges of a layer as TensorDevices makes them: floats of a row that go from the first to
// each other, and from each of those to the first; equal ones from each to all.
std::vector<std::array<uint64_t, 2>> MessagesOf(const ModelConfig& c, uint32_t count) {
  const uint64_t heads = uint64_t{c.head_dim} * (c.q_heads + 2 * c.kv_heads) / count;
  const uint64_t hidden = c.hidden / count, shared = c.layer_configs.front().feed_forward / count;
  const uint64_t inner = shared + uint64_t{c.experts_used} * c.expert_feed_forward / count;
  return {{0, heads},
          {uint64_t{c.q_heads} * c.head_dim, 0},
          {hidden, hidden},
          {inner, inner},
          {hidden, hidden}};
}

// One graph of all layers' exchanges on each device.
std::vector<double> Exchanges(const ModelConfig& c, uint32_t count, uint32_t rows, int rounds) {
  RankDevices devices(count, CudaBackend::kNodeWidth);
  const auto messages = MessagesOf(c, count);
  uint64_t most = 0;
  for (const auto& [to, from] : messages) most = std::max({most, to, from});
  std::vector<std::unique_ptr<Buffer>> memory(count);
  std::vector<cudaGraphExec_t> graphs(count);
  const auto check = [](cudaError_t error) {
    if (error != cudaSuccess) Require(InternalError(cudaGetErrorString(error)));
  };
  devices.Each([&](uint32_t r) {
    memory[r] =
        Require(devices.backend(r).Allocate(count * most * rows * sizeof(float), "messages"));
    devices.backend(r).Clear(memory[r]->data(), 64);  // the device of this thread
    Require(devices.backend(r).Synchronize());
    const auto stream = static_cast<cudaStream_t>(devices.backend(r).stream());
    cudaGraph_t graph = nullptr;
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    for (uint32_t layer = 0; layer < c.layers; ++layer) {
      for (const auto& both : messages) {
        DeviceLink& link = *devices.transport(r).link();
        std::byte* const out = memory[r]->data();
        if (both[0] == both[1]) {
          const DeviceParts parts{out, both[0] * rows * sizeof(float)};
          check(static_cast<cudaError_t>(link.Gather({&parts, 1}, stream)));
          continue;
        }
        std::vector<DeviceMessage> calls;
        for (uint32_t other = r == 0 ? 1 : 0; other < (r == 0 ? count : 1); ++other) {
          const auto add = [&](uint64_t floats, bool sends) {
            const uint64_t bytes = floats * rows * sizeof(float);
            if (bytes > 0) calls.push_back({other, sends ? 1u : 0u, out + other * bytes, bytes});
          };
          add(both[0], r == 0);
          add(both[1], r != 0);
        }
        check(static_cast<cudaError_t>(link.Enqueue(calls, stream)));
      }
    }
    check(cudaStreamEndCapture(stream, &graph));
    check(cudaGraphInstantiate(&graphs[r], graph, 0));
    check(cudaGraphDestroy(graph));
  });
  std::vector<double> seconds;
  for (int i = 0; i < rounds + 2; ++i) {
    const double round = devices.Seconds([&](uint32_t r) {
      check(cudaSetDevice(static_cast<int>(r)));
      check(cudaGraphLaunch(graphs[r], static_cast<cudaStream_t>(devices.backend(r).stream())));
    });
    if (i >= 2) seconds.push_back(round);
  }
  for (const cudaGraphExec_t graph : graphs) check(cudaGraphExecDestroy(graph));
  return seconds;
}

}  // namespace

void MeasureTensor(uint32_t layers, uint32_t rows, uint32_t vocabulary, uint32_t count) {
  if (rows < kSteps * kTogether) Require(InvalidArgumentError("too few rows"));
  Json shape = ScoutShape(/*smoke=*/false);
  shape["num_hidden_layers"] = layers;
  if (vocabulary > 0) shape["vocab_size"] = vocabulary;
  const HfConfig config = Require(ReadHfConfig(shape, "the bench's shape"));
  const auto source = MakeRandomModel(config.model);
  std::vector<double> empty;
  for (uint32_t d = 0; d < count; ++d) empty.push_back(UsedGib(static_cast<int>(d)));
  const auto used = [&] {
    std::vector<double> gib;
    for (uint32_t d = 0; d < count; ++d) gib.push_back(UsedGib(static_cast<int>(d)) - empty[d]);
    return gib;
  };
  Measured one, two;
  Json record = {{"tensor_layers", layers}, {"prefill_rows", rows}, {"devices", count}};
  {
    auto first = Require(MakeCudaBackend(0, 16));
    std::unique_ptr<Model> model;
    record["load_s_one"] = SecondsOf([&] { model = Require(LoadModel(*source, *first)); });
    record["weights_gib_one"] = used()[0];
    one = Compute(*model, *first, rows);
    record["gib_one"] = used()[0];
    model.reset();
  }
  Print(record);
  {
    const auto first = Require(MakeCudaBackend(0, 8));
    TensorDevicesOptions options;
    for (uint32_t d = 0; d < count; ++d) options.devices.push_back("cuda:" + std::to_string(d));
    options.cpu = {8, "auto"};
    const auto devices = Require(TensorDevices::Open(*first, *first, options));
    std::unique_ptr<Model> model;
    record["load_s_two"] = SecondsOf([&] { model = Require(LoadParted(*source, *devices)); });
    record["weights_gib_each"] = used();
    two = Compute(*model, *devices, rows);
    record["gib_each"] = used();
    model.reset();
  }
  record["same_bits"] =
      one.logits.size() == two.logits.size() &&
      std::memcmp(one.logits.data(), two.logits.data(), one.logits.size() * sizeof(float)) == 0;
  record["finite"] = std::all_of(one.logits.begin(), one.logits.end(),
                                 [](float value) { return std::isfinite(value); });
  const auto of_step = Exchanges(config.model, count, 1, 20);
  const auto of_prefill = Exchanges(config.model, count, rows, 5);
  record["decode_ms_one"] = Milliseconds(one.step);
  record["decode_ms_two"] = Milliseconds(two.step);
  record["decode_speedup"] = Median(one.step) / Median(two.step);
  record["decode_16_ms_one"] = Milliseconds(one.step_of_16);
  record["decode_16_ms_two"] = Milliseconds(two.step_of_16);
  record["decode_16_speedup"] = Median(one.step_of_16) / Median(two.step_of_16);
  record["decode_exchange_ms"] = Median(of_step) * 1e3;
  record["decode_exchange_share"] = Median(of_step) / Median(two.step);
  record["prefill_ms_one"] = Milliseconds(one.prefill);
  record["prefill_ms_two"] = Milliseconds(two.prefill);
  record["prefill_tokens_per_s_one"] = rows / Median(one.prefill);
  record["prefill_tokens_per_s_two"] = rows / Median(two.prefill);
  record["prefill_speedup"] = Median(one.prefill) / Median(two.prefill);
  record["prefill_exchange_ms"] = Median(of_prefill) * 1e3;
  record["prefill_exchange_share"] = Median(of_prefill) / Median(two.prefill);
  Print(record);
}

}  // namespace corpusd
