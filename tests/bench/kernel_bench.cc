// Throughput of the CPU kernels at the shapes of SmolLM2-135M, beside ceilings measured in the same
// run:
//   kernel_bench [--threads N] [--isa NAME] [--depth TOKENS] [--smoke] [--processor-time]
//   [--kv-only] [--kv FORMAT]
// Prints one JSON object. Rates are the best of several runs; "share" is of the ceiling of the
// table's own arithmetic.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "engine/backend/cpu_backend.h"
#include "tests/bench/cpu_ceilings.h"
#include "tests/bench/plain_basis.h"

namespace corpusd {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint32_t kLayers = 30;
constexpr uint32_t kPrefillRows = 512;
constexpr uint32_t kTogether = 16;  // questions on one corpus that decode at once
constexpr AttentionShape kShape = {.q_heads = 9, .kv_heads = 3, .head_dim = 64, .scale = 0.125f};

struct Options {
  unsigned threads = 0;
  std::string isa = "auto";
  uint32_t depth = 8192;
  bool smoke = false;
  bool processor_time = false;  // with one thread
  bool kv_only = false;         // no products with weights
  std::string kv;               // one format of the cache; empty: all
};

struct Product {
  const char* name;
  WeightType type;
  uint32_t rows, cols;
  uint32_t copies;  // enough of them that a decode reads memory, not a cache
};
constexpr Product kProducts[] = {{"qkv", WeightType::kQ4_1, 960, 576, kLayers},
                                 {"o", WeightType::kQ4_1, 576, 576, kLayers},
                                 {"gate_up", WeightType::kQ4_1, 3072, 576, kLayers},
                                 {"down", WeightType::kQ4_1, 576, 1536, kLayers},
                                 {"lm_head", WeightType::kQ8_0, 49152, 576, 1}};

template <typename T>
T ValueOrExit(Result<T> result) {
  if (!result.ok()) {
    std::fprintf(stderr, "kernel_bench: %s\n", result.status().ToString().c_str());
    std::exit(1);
  }
  return std::move(*result);
}

// Seconds of the best of several runs.
template <typename Body>
double BestSeconds(const Options& options, const Body& body) {
  const int repeats = options.smoke ? 1 : 7;
  double best = 1e30;
  body();
  for (int i = 0; i < repeats; ++i) {
    const double start = BenchSeconds(options.processor_time);
    body();
    best = std::min(best, BenchSeconds(options.processor_time) - start);
  }
  return best;
}

class Bench {
 public:
  explicit Bench(Options options)
      : options_(std::move(options)),
        backend_(ValueOrExit(MakeCpuBackend({.threads = options_.threads, .isa = options_.isa}))),
        values_(size_t{kPrefillRows} * 49152 / 16) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (float& value : values_) value = normal(random);
  }

  Json Run();

 private:
  Json RunProduct(const Product& product);
  Json RunAttention(KvCodec codec);
  Json RunEncode(KvCodec codec);
  MatrixView Values(uint32_t rows, uint32_t cols) { return {values_.data(), rows, cols, cols}; }

  Options options_;
  std::unique_ptr<Backend> backend_;
  std::vector<float> values_;
  PlainBasis basis_{kShape.head_dim, kShape.kv_heads};
  double macs_ceiling_ = 0;
  CpuCeilings ceilings_;
  double prefill_seconds_ = 0;  // of one layer stack, kPrefillRows tokens
  double decode_seconds_ = 0;   // of one token
};

Json Bench::RunProduct(const Product& product) {
  std::mt19937 random(2);
  const uint64_t row_bytes = WeightRowBytes(product.type, product.cols);
  std::vector<std::byte> stored(row_bytes * product.rows);
  for (std::byte& byte : stored) byte = static_cast<std::byte>(random() & 0x1f);
  std::vector<std::unique_ptr<Weight>> weights;
  for (uint32_t i = 0; i < product.copies; ++i) {
    const WeightSource source{product.name, product.type, product.rows, product.cols, stored};
    weights.push_back(ValueOrExit(backend_->LoadWeight(std::span(&source, 1))));
  }
  const uint32_t many = options_.smoke ? 32 : product.rows > 4096 ? 64 : kPrefillRows;
  auto out_buffer = ValueOrExit(backend_->Allocate(uint64_t{many} * product.rows * 4, "outputs"));
  Json json = {{"name", product.name}, {"outputs", product.rows}, {"inputs", product.cols}};
  const double macs = static_cast<double>(product.rows) * product.cols;
  const MatrixView out = out_buffer->Matrix(many, product.rows);
  const double prefill = BestSeconds(
      options_, [&] { backend_->MatMul(out, Values(many, product.cols), *weights[0], false); });
  json["rows"] = many;
  json["gmacs"] = macs * many / prefill * 1e-9;
  json["share"] = macs * many / prefill * 1e-9 / macs_ceiling_;
  const auto few_seconds = [&](uint32_t rows) {
    const double all = BestSeconds(options_, [&] {
      for (const auto& weight : weights) {
        backend_->MatMul(out.Rows(0, rows), Values(rows, product.cols), *weight, false);
      }
    });
    return all / product.copies;
  };
  const double decode = few_seconds(1);
  json["together_times_one"] = few_seconds(kTogether) / decode;  // the time, of so many rows
  json["decode_gmacs"] = macs / decode * 1e-9;
  json["decode_gbytes"] = static_cast<double>(weights[0]->bytes()) / decode * 1e-9;
  json["decode_share_of_read"] =
      static_cast<double>(weights[0]->bytes()) / decode * 1e-9 / ceilings_.read_gbytes;
  if (product.copies > 1) prefill_seconds_ += prefill * product.copies;
  decode_seconds_ += decode * product.copies;
  return json;
}

Json Bench::RunAttention(KvCodec codec) {
  const uint32_t pages = options_.depth / kBlockTokens;
  const KvBasis* basis = IsCoded(codec) ? basis_.heads() : nullptr;
  const KvFormat format{.key_codec = codec,
                        .value_codec = codec,
                        .layers = kLayers,
                        .kv_heads = kShape.kv_heads,
                        .head_dim = kShape.head_dim};
  auto blocks = ValueOrExit(backend_->Allocate(format.BlockBytes() * pages, "pages"));
  std::vector<float> angles(size_t{options_.depth + kPrefillRows} * kShape.head_dim, 0.7f);
  const RopeTable rope{angles.data(), options_.depth + kPrefillRows, kShape.head_dim / 2};
  std::vector<KvPage> list;
  const uint32_t kv_cols = kShape.kv_heads * kShape.head_dim;
  for (uint32_t p = 0; p < pages; ++p) {
    std::byte* block = blocks->data() + p * format.BlockBytes();
    list.push_back({block, uint64_t{p} * kBlockTokens, kBlockTokens});
    for (uint32_t layer = 0; layer < kLayers; ++layer) {
      backend_->WriteKv({&format, block, layer, 0, basis}, Values(kBlockTokens, kv_cols),
                        Values(kBlockTokens, kv_cols), &rope);
    }
  }
  const KvPageList lists[] = {{&format, list}};
  AttentionInput input{.shape = kShape,
                       .layer = 0,
                       .first_position = 0,
                       .lists = lists,
                       .rope = &rope,
                       .basis = basis};
  const uint32_t cols = kShape.q_heads * kShape.head_dim;
  const uint32_t rows = std::min(kPrefillRows, options_.depth);
  auto out_buffer = ValueOrExit(backend_->Allocate(uint64_t{rows} * cols * 4, "outputs"));
  const MatrixView out = out_buffer->Matrix(rows, cols);
  Json json = {{"kv", KvFormatName(format)}, {"depth", options_.depth}};
  input.first_position = options_.depth - rows;
  const double prefill =
      BestSeconds(options_, [&] { backend_->Attention(out, Values(rows, cols), input); });
  const double keys = options_.depth - rows / 2.0;
  const double macs = 2.0 * cols * keys * rows;
  json["prefill_gmacs"] = macs / prefill * 1e-9;
  json["prefill_share"] = macs / prefill * 1e-9 / macs_ceiling_;
  input.first_position = options_.depth - 1;
  const double decode = BestSeconds(options_, [&] {
    for (input.layer = 0; input.layer < kLayers; ++input.layer) {
      backend_->Attention(out.Rows(0, 1), Values(1, cols), input);
    }
  });
  json["decode_ms_a_token"] = decode * 1e3;
  json["decode_gbytes"] = static_cast<double>(format.BlockBytes()) * pages / decode * 1e-9;
  json["decode_share_of_read"] = json["decode_gbytes"].get<double>() / ceilings_.read_gbytes;
  json["decode_tokens_per_s"] = 1 / (decode + decode_seconds_);
  const double together = BestSeconds(options_, [&] {
    for (input.layer = 0; input.layer < kLayers; ++input.layer) {
      const std::vector<AttentionInput> inputs(kTogether, input);
      backend_->AttentionEach(out.Rows(0, kTogether), Values(kTogether, cols), inputs);
    }
  });
  json["together_times_one"] = together / decode;
  // Seconds of attention per token grow with depth: a prompt of n tokens costs the mean, half of
  // depth n.
  const double per_key = prefill * kLayers / rows / keys;
  const double weights = prefill_seconds_ / kPrefillRows;
  json["prefill_512_tokens_per_s"] = 1 / (weights + per_key * 256);
  json["prefill_8192_tokens_per_s"] = 1 / (weights + per_key * 4096);
  return json;
}

// One block of all layers, again and again.
Json Bench::RunEncode(KvCodec codec) {
  const KvFormat format{.key_codec = codec,
                        .value_codec = codec,
                        .layers = kLayers,
                        .kv_heads = kShape.kv_heads,
                        .head_dim = kShape.head_dim};
  auto block = ValueOrExit(backend_->Allocate(format.BlockBytes(), "block"));
  std::vector<float> angles(size_t{kBlockTokens} * kShape.head_dim, 0.7f);
  const RopeTable rope{angles.data(), kBlockTokens, kShape.head_dim / 2};
  const uint32_t kv_cols = kShape.kv_heads * kShape.head_dim;
  const KvBasis* basis = IsCoded(codec) ? basis_.heads() : nullptr;
  const double seconds = BestSeconds(options_, [&] {
    for (uint32_t layer = 0; layer < kLayers; ++layer) {
      backend_->WriteKv({&format, block->data(), layer, 0, basis}, Values(kBlockTokens, kv_cols),
                        Values(kBlockTokens, kv_cols), &rope);
    }
  });
  return {{"kv", KvFormatName(format)},
          {"bytes_a_token", format.BlockBytes() / kBlockTokens},
          {"tokens_per_s", kBlockTokens / seconds}};
}

Json Bench::Run() {
  ceilings_ = MeasureCpuCeilings(options_.threads, options_.processor_time);
  const std::string name(backend_->name());
  macs_ceiling_ = MacsCeiling(ceilings_, name);
  Json json = {{"backend", name},
               {"ceilings",
                {{"fp32_gmacs", ceilings_.fp32_gmacs},
                 {"bf16_gmacs", ceilings_.bf16_gmacs},
                 {"int16_gmacs", ceilings_.int16_gmacs},
                 {"int8_gmacs", ceilings_.int8_gmacs},
                 {"amx_bf16_gmacs", ceilings_.amx_bf16_gmacs},
                 {"read_gbytes", ceilings_.read_gbytes}}}};
  if (!options_.kv_only) {
    for (const Product& product : kProducts) json["matmul"].push_back(RunProduct(product));
    json["decode_tokens_per_s_at_0"] = 1 / decode_seconds_;
  }
  for (const KvCodec codec : {KvCodec::kBf16, KvCodec::kInt8, KvCodec::kCq8, KvCodec::kCq4,
                              KvCodec::kCq3, KvCodec::kCq2}) {
    if (!options_.kv.empty() && options_.kv != KvCodecName(codec)) continue;
    json["encode"].push_back(RunEncode(codec));
    json["attention"].push_back(RunAttention(codec));
  }
  return json;
}

Options ParseOptions(int count, char** arguments) {
  Options options;
  for (int i = 1; i < count; ++i) {
    const std::string argument = arguments[i];
    const bool has_value = i + 1 < count;
    if (argument == "--smoke") {
      options.smoke = true;
      options.depth = 256;
    } else if (argument == "--processor-time") {
      options.processor_time = true;
      options.threads = 1;
    } else if (argument == "--kv-only") {
      options.kv_only = true;
    } else if (argument == "--kv" && has_value) {
      options.kv = arguments[++i];
    } else if (argument == "--threads" && has_value) {
      options.threads = static_cast<unsigned>(std::strtoul(arguments[++i], nullptr, 10));
    } else if (argument == "--isa" && has_value) {
      options.isa = arguments[++i];
    } else if (argument == "--depth" && has_value) {
      const auto depth = static_cast<uint32_t>(std::strtoul(arguments[++i], nullptr, 10));
      options.depth = std::clamp(depth, 1u, 1u << 20) / kBlockTokens * kBlockTokens;
      options.depth = std::max(options.depth, kBlockTokens);
    } else {
      std::fprintf(stderr, "kernel_bench: unknown argument %s\n", argument.c_str());
      std::exit(2);
    }
  }
  return options;
}

}  // namespace
}  // namespace corpusd

int main(int argc, char** argv) {
  corpusd::Bench bench(corpusd::ParseOptions(argc, argv));
  std::printf("%s\n", bench.Run().dump(2).c_str());
  return 0;
}
