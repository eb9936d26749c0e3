// tensor_bench: what sharing the weights of a model costs on a CPU, and what the other way of
// sharing them would. Ranks are threads with one thread of arithmetic each; three of them, or as
// many as --ranks says, against one with one. Medians of interleaved runs.
//   tensor_bench --model FILE.gguf [--ranks N] [--smoke]       prints one JSON object
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "engine/backend/cpu_backend.h"
#include "engine/model/model.h"
#include "engine/ranks/in_process_transport.h"
#include "engine/ranks/tensor_backend.h"
#include "engine/ranks/tensor_source.h"
#include "kernels/weight_types.h"
#include "tests/bench/require.h"

namespace corpusd {
namespace {

using Json = nlohmann::json;
constexpr uint32_t kFixedParts = 8;

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}
template <typename Body>
double Seconds(const Body& body) {
  const auto begin = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// One prefill of `rows` tokens and `steps` tokens more, one after the other.
struct Times {
  std::vector<double> prefill, step;
};
void Compute(const Model& model, Backend& backend, uint32_t rows, uint32_t steps, Times* times) {
  const auto scratch = Require(ForwardScratch::Create(backend, model.config(), rows));
  const KvFormat format = Require(model.Format("bf16"));
  KvSequence kv(format, format);
  std::mt19937 random(1);
  std::vector<TokenId> ids(rows);
  for (TokenId& id : ids) id = random() % 256 + 3;
  const auto go_on = [] { return true; };
  times->prefill.push_back(Seconds([&] { Require(model.Forward(ids, kv, *scratch, go_on)); }));
  const double all = Seconds([&] {
    for (uint32_t i = 0; i < steps; ++i) {
      Require(model.Forward(std::span(ids).subspan(i, 1), kv, *scratch, go_on));
    }
  });
  times->step.push_back(all / steps);
}

// A rank's whole part in a job; what it has sent for a prefill of `rows`.
struct RankReport {
  uint64_t weight_bytes = 0, sent_bytes = 0;
  Times times;
};
RankReport RunRank(const ModelSource& source, Transport& transport, uint32_t rows, uint32_t steps,
                   int rounds) {
  const auto share =
      Require(TensorShare::Make(source.config(), transport.rank(), transport.size()));
  const auto local = Require(MakeCpuBackend({.threads = 1}));
  TensorBackend backend(*local, transport, share);
  const auto part = Require(LoadModel(*MakeTensorSource(source, share), backend));
  RankReport report;
  report.weight_bytes = backend.weight_bytes();
  for (int round = 0; round < rounds; ++round) {
    Compute(*part, backend, rows, steps, &report.times);
    if (round == 0) report.sent_bytes = backend.sent_bytes();
  }
  return report;
}

std::vector<RankReport> RunJob(const ModelSource& source, uint32_t ranks, uint32_t rows,
                               uint32_t steps, int rounds) {
  auto transports = MakeInProcessTransports(ranks);
  std::vector<RankReport> reports(ranks);
  std::vector<std::jthread> threads;
  for (uint32_t r = 0; r < ranks; ++r) {
    threads.emplace_back(
        [&, r] { reports[r] = RunRank(source, *transports[r], rows, steps, rounds); });
  }
  threads.clear();
  return reports;
}

// The product of a down projection, whole and as the sum of kFixedParts products over as many
// pieces of its inputs: what one rank alone would pay if sums were cut at places that do not hang
// on the number of ranks.
Json FixedParts(const ModelSource& source, uint32_t rows, int rounds) {
  const ModelConfig& c = source.config();
  const uint32_t cols = c.feed_forward / kFixedParts;
  const auto matrix = Require(source.Matrix("blk.0.ffn_down.weight", c.hidden, c.feed_forward));
  const WeightSource& whole = matrix.weight;
  const WeightTypeInfo* const type = FindWeightType(static_cast<uint32_t>(whole.type));
  if (cols % type->block_elements != 0) return nullptr;
  const auto backend = Require(MakeCpuBackend({.threads = 1}));
  const auto weight = Require(backend->LoadWeight({&whole, 1}));
  std::vector<std::unique_ptr<Weight>> parts;
  const uint64_t row_bytes = WeightRowBytes(whole.type, whole.cols);
  const uint64_t part_bytes = WeightRowBytes(whole.type, cols);
  for (uint32_t p = 0; p < kFixedParts; ++p) {
    std::vector<std::byte> bytes(part_bytes * whole.rows);
    for (uint32_t r = 0; r < whole.rows; ++r) {
      std::memcpy(&bytes[r * part_bytes], &whole.bytes[r * row_bytes + p * part_bytes], part_bytes);
    }
    const WeightSource part{whole.name, whole.type, whole.rows, cols, bytes};
    parts.push_back(Require(backend->LoadWeight({&part, 1})));
  }
  const auto x_memory =
      Require(backend->Allocate(uint64_t{rows} * whole.cols * sizeof(float), "inputs"));
  const auto out_memory =
      Require(backend->Allocate(uint64_t{rows} * whole.rows * sizeof(float), "outputs"));
  const MatrixView x = x_memory->Matrix(rows, whole.cols);
  const MatrixView out = out_memory->Matrix(rows, whole.rows);
  std::mt19937 random(2);
  for (uint64_t i = 0; i < uint64_t{rows} * x.cols; ++i) {
    x.data[i] = static_cast<float>(random() % 4096) / 2048 - 1;
  }
  const int calls = static_cast<int>(std::max(1u, 512 / rows));
  std::vector<double> one, many;
  for (int round = 0; round < rounds; ++round) {
    one.push_back(Seconds([&] {
      for (int i = 0; i < calls; ++i) backend->MatMul(out, x, *weight, false);
    }));
    many.push_back(Seconds([&] {
      for (int i = 0; i < calls; ++i) {
        for (uint32_t p = 0; p < kFixedParts; ++p) {
          backend->MatMul(out, x.Cols(p * cols, cols), *parts[p], p > 0);
        }
      }
    }));
  }
  return {{"rows", rows},
          {"whole_us", Median(one) / calls * 1e6},
          {"parts_us", Median(many) / calls * 1e6},
          {"ratio", Median(many) / Median(one)}};
}

int Main(int count, char** arguments) {
  std::string model;
  uint32_t ranks = 3, rows = 512, steps = 32;
  int rounds = 5;
  for (int i = 1; i < count; ++i) {
    const std::string what = arguments[i];
    if (what == "--model" && i + 1 < count) model = arguments[++i];
    if (what == "--ranks" && i + 1 < count)
      ranks = static_cast<uint32_t>(std::atoi(arguments[++i]));
    if (what == "--smoke") rows = 40, steps = 2, rounds = 1;
  }
  const auto source = Require(OpenModelSource(model));
  const ModelConfig& c = source->config();
  const auto alone = RunJob(*source, 1, rows, steps, rounds);
  const auto dealt = RunJob(*source, ranks, rows, steps, rounds);
  const double tokens = static_cast<double>(rows + steps) * c.layers;
  const double share = static_cast<double>(ranks - 1) / ranks;
  std::vector<double> held;
  for (const RankReport& report : dealt) {
    held.push_back(static_cast<double>(report.weight_bytes) / alone[0].weight_bytes);
  }
  const Json record = {
      {"model", c.name},
      {"ranks", ranks},
      {"rows", rows},
      {"weight_bytes_one", alone[0].weight_bytes},
      {"weight_share_a_rank", held},
      {"prefill_ms",
       {{"one", Median(alone[0].times.prefill) * 1e3},
        {"dealt", Median(dealt[0].times.prefill) * 1e3}}},
      {"step_ms",
       {{"one", Median(alone[0].times.step) * 1e3}, {"dealt", Median(dealt[0].times.step) * 1e3}}},
      // Without the embedding: of a token and layer, as measured and as it would be.
      {"sent_bytes_a_token_and_layer", static_cast<double>(dealt[0].sent_bytes) / tokens},
      {"all_reduce_bytes_a_token_and_layer", 2 * 2 * share * c.hidden * sizeof(float)},
      {"fixed_parts_of_a_sum",
       {FixedParts(*source, 1, 4 * rounds), FixedParts(*source, rows, rounds)}}};
  std::printf("%s\n", record.dump(2).c_str());
  return 0;
}

}  // namespace
}  // namespace corpusd

int main(int count, char** arguments) { return corpusd::Main(count, arguments); }
