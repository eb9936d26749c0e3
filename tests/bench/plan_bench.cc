// corpus-bench plan: what a corpus takes on a model of which only the shape is here. Rates are
// measured on this machine, on random matrices and pages of the model's own shape, one at a time.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "engine/backend/device_backend.h"
#include "engine/model/checkpoint_folder.h"
#include "engine/model/hf_config.h"
#include "engine/model/weight_sizes.h"
#include "store/base/units.h"
#include "tests/bench/bench_command.h"
#include "tests/bench/cpu_ceilings.h"
#include "tests/bench/model_plan.h"
#include "tests/bench/plain_basis.h"

namespace corpusd {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint32_t kRows = 512;  // of a prefill's run
constexpr uint32_t kQuestionTokens = 64;
constexpr uint64_t kConfigBytesMax = uint64_t{4} << 20;

struct Arguments {
  std::string config_path, tokens = "10M", weights = "int4", device = "cpu", isa = "auto";
  std::string device_bytes = "141GB";
  std::vector<std::string> kv_formats = {"cq4", "cq2"};
  uint32_t depth = 16384;
  unsigned threads = 0;
  bool measure = true;
  bool smoke = false;
  std::string format = "table";
};

struct Shape {
  ModelConfig config;
  bool tied = false;
};

Result<Shape> ReadShape(const std::string& path) {
  std::error_code ignored;
  if (path.ends_with(".json") || std::filesystem::is_directory(path, ignored)) {
    const std::string file = path.ends_with(".json") ? path : path + "/config.json";
    ASSIGN_OR_RETURN(const nlohmann::json json, ReadJsonFile(file, kConfigBytesMax));
    ASSIGN_OR_RETURN(const HfConfig config, ReadHfConfig(json, file));
    return Shape{config.model, config.layout.tied_output};
  }
  ASSIGN_OR_RETURN(const auto source, OpenModelSource(path));
  return Shape{source->config(), !source->Has("output.weight")};
}

// Times a model's parts on a backend. Matrices and pages are made, timed and dropped one by one.
class Rates {
 public:
  Rates(Backend& backend, const ModelConfig& config, const Arguments& a, double macs_ceiling)
      : backend_(backend), config_(config), a_(a), macs_ceiling_(macs_ceiling) {}

  Status Prepare() {
    uint32_t cols =
        std::max({config_.hidden, config_.FeedForwardMax(), config_.q_heads * config_.head_dim});
    ASSIGN_OR_RETURN(values_, Random(uint64_t{kRows} * cols));
    return OkStatus();
  }

  Status AddProduct(const PlannedProduct& product, MeasuredRates* rates) {
    const uint32_t rows = a_.smoke ? std::min(product.rows, 64U) : product.rows;
    std::mt19937 random(2);
    std::vector<std::byte> stored(WeightRowBytes(product.type, product.cols) * rows);
    for (std::byte& byte : stored) byte = static_cast<std::byte>(random() & 0x1f);
    const WeightSource source{product.name, product.type, rows, product.cols, stored};
    ASSIGN_OR_RETURN(const auto weight, backend_.LoadWeight(std::span(&source, 1)));
    const bool output = product.name == kOutputName;
    const uint32_t many = output ? 1 : kRows;  // logits are made of one row
    ASSIGN_OR_RETURN(const auto out, backend_.Allocate(uint64_t{many} * rows * 4, "outputs"));
    const double scale = static_cast<double>(product.rows) / rows;
    const double one =
        scale * BestSeconds([&] {
          backend_.MatMul(out->Matrix(1, rows), Values(1, product.cols), *weight, false);
        });
    rates->products_one_row += one * product.a_token;
    Json row = {{"product", product.name},
                {"outputs", product.rows},
                {"inputs", product.cols},
                {"weights", FindWeightType(static_cast<uint32_t>(product.type))->name},
                {"a_token", product.a_token},
                {"one_row_ms", one * 1e3}};
    if (!output) {
      const double seconds =
          scale * BestSeconds([&] {
            backend_.MatMul(out->Matrix(many, rows), Values(many, product.cols), *weight, false);
          });
      rates->products_row += seconds / many * product.a_token;
      const double gmacs = static_cast<double>(product.rows) * product.cols * many / seconds * 1e-9;
      row["gmacs"] = gmacs;
      if (macs_ceiling_ > 0) row["share"] = gmacs / macs_ceiling_;
    }
    json_["products"].push_back(row);
    return OkStatus();
  }

  // Attention of the last rows of a text of `depth` tokens in the format, and what writing it
  // costs.
  Status AddAttention(const std::string& name, MeasuredRates* rates) {
    KvFormat format;
    if (!ParseKvFormatName(name, &format.key_codec, &format.value_codec)) {
      return InvalidArgumentError("KV format '" + name + "' is not known");
    }
    format.layers = 1;
    format.kv_heads = config_.kv_heads;
    format.head_dim = config_.head_dim;
    const uint32_t depth = a_.smoke ? 2 * kRows : a_.depth / kBlockTokens * kBlockTokens;
    const PlainBasis plain(config_.head_dim, config_.kv_heads);
    const KvBasis* const basis = IsCoded(format) ? plain.heads() : nullptr;
    ASSIGN_OR_RETURN(const auto blocks,
                     backend_.Allocate(format.BlockBytes() * (depth / kBlockTokens), "pages"));
    std::vector<KvPage> pages;
    const uint32_t kv_cols = config_.kv_heads * config_.head_dim;
    const auto write = [&](std::byte* block) {
      backend_.WriteKv({&format, block, 0, 0, basis}, Values(kBlockTokens, kv_cols),
                       Values(kBlockTokens, kv_cols), nullptr);
    };
    for (uint32_t first = 0; first < depth; first += kBlockTokens) {
      std::byte* const block = blocks->data() + first / kBlockTokens * format.BlockBytes();
      pages.push_back({block, first, kBlockTokens});
      write(block);
    }
    rates->encode_token = BestSeconds([&] { write(blocks->data()); }) / kBlockTokens;
    const KvPageList lists[] = {{&format, pages}};
    const float scale = 1 / std::sqrt(static_cast<float>(config_.head_dim));
    AttentionInput input{.shape = {config_.q_heads, config_.kv_heads, config_.head_dim, scale},
                         .layer = 0,
                         .first_position = depth - kRows,
                         .lists = lists,
                         .rope = nullptr,
                         .basis = basis};
    const uint32_t cols = config_.q_heads * config_.head_dim;
    ASSIGN_OR_RETURN(const auto out, backend_.Allocate(uint64_t{kRows} * cols * 4, "outputs"));
    const double many = BestSeconds(
        [&] { backend_.Attention(out->Matrix(kRows, cols), Values(kRows, cols), input); });
    rates->key_row = many / kRows / (depth - kRows / 2.0);
    input.first_position = depth - 1;
    const double one =
        BestSeconds([&] { backend_.Attention(out->Matrix(1, cols), Values(1, cols), input); });
    rates->key_one_row = one / depth;
    const double gmacs = 2.0 * cols / rates->key_row * 1e-9;
    Json row = {{"kv", name},
                {"depth", depth},
                {"gmacs", gmacs},
                {"one_row_gb_per_s",
                 static_cast<double>(format.BlockBytes()) / kBlockTokens * depth / one * 1e-9},
                {"encode_tokens_per_s", 1 / rates->encode_token}};
    if (macs_ceiling_ > 0) row["share"] = gmacs / macs_ceiling_;
    json_["attention"].push_back(row);
    return OkStatus();
  }

  // Of the device.
  const Status& status() const { return status_; }
  Json TakeJson() { return std::move(json_); }

 private:
  Result<std::unique_ptr<Buffer>> Random(uint64_t count) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> values(count);
    for (float& value : values) value = normal(random);
    ASSIGN_OR_RETURN(auto buffer, backend_.Allocate(count * sizeof(float), "inputs"));
    RETURN_IF_ERROR(backend_.Copy(buffer->data(), reinterpret_cast<const std::byte*>(values.data()),
                                  count * sizeof(float)));
    return buffer;
  }
  MatrixView Values(uint32_t rows, uint32_t cols) { return values_->Matrix(rows, cols); }

  template <typename Body>
  double BestSeconds(const Body& body) {
    double best = 1e30;
    for (int i = 0; i < (a_.smoke ? 2 : 4); ++i) {
      const auto start = BenchClock::now();
      body();
      if (const Status status = backend_.Synchronize(); !status.ok()) status_ = status;
      if (i > 0) best = std::min(best, SecondsSince(start));  // the first one warms up
    }
    return best;
  }

  Backend& backend_;
  const ModelConfig& config_;
  const Arguments& a_;
  const double macs_ceiling_;
  std::unique_ptr<Buffer> values_;
  Status status_;
  Json json_;
};

Json ToJson(const TimePlan& t) {
  return {{"prefill_s", t.prefill},
          {"products_s", t.products},
          {"local_attention_s", t.local_attention},
          {"full_attention_s", t.full_attention},
          {"encoding_s", t.encoding},
          {"question_s", t.question},
          {"answer_token_s", t.decode_token}};
}

Json WeightsJson(const Shape& shape, WeightType stored, WeightMode mode) {
  Json parts = Json::array();
  WeightPart total;
  for (const WeightPart& part : WeightSizes(shape.config, shape.tied, stored, mode)) {
    parts.push_back({{"part", part.name},
                     {"parameters", part.parameters},
                     {"used", part.used},
                     {"bytes", part.bytes}});
    total.parameters += part.parameters;
    total.used += part.used;
    total.bytes += part.bytes;
  }
  return {{"parts", parts},
          {"parameters", total.parameters},
          {"used", total.used},
          {"bytes", total.bytes}};
}

std::string Duration(double seconds) {
  char text[64];
  if (seconds >= 2 * 86400) {
    std::snprintf(text, sizeof text, "%.1f days", seconds / 86400);
  } else if (seconds >= 2 * 3600) {
    std::snprintf(text, sizeof text, "%.1f hours", seconds / 3600);
  } else if (seconds >= 1) {
    std::snprintf(text, sizeof text, "%.1f s", seconds);
  } else {
    std::snprintf(text, sizeof text, "%.1f ms", seconds * 1e3);
  }
  return text;
}

void PrintRates(const Json& report) {
  if (!report.contains("rates")) return;
  std::printf("\nmeasured on %s, %u threads, runs of %u rows",
              report["backend"].get<std::string>().c_str(), report["threads"].get<unsigned>(),
              kRows);
  const double ceiling = report["gmacs_ceiling"].get<double>();
  if (ceiling > 0) std::printf("; ceiling %.0f GMAC/s", ceiling);
  std::printf("\n");
  for (const Json& r : report["rates"]["products"]) {
    std::printf("  %-30s %7u x %-6u %5s %8.1f a token", r["product"].get<std::string>().c_str(),
                r["outputs"].get<unsigned>(), r["inputs"].get<unsigned>(),
                r["weights"].get<std::string>().c_str(), r["a_token"].get<double>());
    if (r.contains("gmacs")) std::printf(" %8.0f GMAC/s", r["gmacs"].get<double>());
    if (r.contains("share")) std::printf(" (%2.0f %%)", 100 * r["share"].get<double>());
    std::printf("  one row %.2f ms\n", r["one_row_ms"].get<double>());
  }
  for (const Json& r : report["rates"]["attention"]) {
    std::printf("  attention over %-5s at %u %12.0f GMAC/s", r["kv"].get<std::string>().c_str(),
                r["depth"].get<unsigned>(), r["gmacs"].get<double>());
    if (r.contains("share")) std::printf(" (%2.0f %%)", 100 * r["share"].get<double>());
    std::printf("  one row %.1f GB/s, encoding %.0f tokens/s a layer\n",
                r["one_row_gb_per_s"].get<double>(), r["encode_tokens_per_s"].get<double>());
  }
}

void Print(const Json& report) {
  const Json& weights = report["weights"];
  std::printf("%s, %.1f billion parameters, %.1f used by a token; weights %s:\n",
              report["architecture"].get<std::string>().c_str(),
              weights["parameters"].get<double>() * 1e-9, weights["used"].get<double>() * 1e-9,
              report["mode"].get<std::string>().c_str());
  for (const Json& part : weights["parts"]) {
    std::printf("  %-18s %14.3f billion  %12s\n", part["part"].get<std::string>().c_str(),
                part["parameters"].get<double>() * 1e-9,
                FormatBytes(part["bytes"].get<uint64_t>()).c_str());
  }
  std::printf("  %-18s %31s\n", "all", FormatBytes(weights["bytes"].get<uint64_t>()).c_str());
  PrintRates(report);
  for (const Json& plan : report["plans"]) {
    std::printf(
        "\n%lu tokens in %s: %lu bytes a token, %s; with the weights %s, %.2f devices of %s\n",
        report["tokens"].get<uint64_t>(), plan["kv"].get<std::string>().c_str(),
        plan["token_bytes"].get<uint64_t>(), FormatBytes(plan["bytes"].get<uint64_t>()).c_str(),
        FormatBytes(plan["with_weights"].get<uint64_t>()).c_str(), plan["devices"].get<double>(),
        report["device_bytes"].get<std::string>().c_str());
    if (!plan.contains("time")) continue;
    const Json& t = plan["time"];
    const auto text = [&](const char* name) { return Duration(t[name].get<double>()); };
    std::printf("  prefill %s (products %s, local attention %s, full attention %s, encoding %s)\n",
                text("prefill_s").c_str(), text("products_s").c_str(),
                text("local_attention_s").c_str(), text("full_attention_s").c_str(),
                text("encoding_s").c_str());
    std::printf("  a question of %u tokens %s, each token of its answer %s\n", kQuestionTokens,
                text("question_s").c_str(), text("answer_token_s").c_str());
  }
}

Result<uint64_t> TokenCount(std::string text) {
  const bool millions = text.ends_with('M'), thousands = text.ends_with('K');
  if (millions || thousands) text.pop_back();
  char* end = nullptr;
  const unsigned long long count = std::strtoull(text.c_str(), &end, 10);
  if (text.empty() || *end != '\0' || count == 0 || count > (uint64_t{1} << 32)) {
    return InvalidArgumentError("'" + text + "' is not a number of tokens, such as 10M");
  }
  return count * (millions ? 1024 * 1024 : thousands ? 1024 : 1);
}

Status Plan(const Arguments& a) {
  ASSIGN_OR_RETURN(const Shape shape, ReadShape(a.config_path));
  ASSIGN_OR_RETURN(const uint64_t tokens, TokenCount(a.tokens));
  ASSIGN_OR_RETURN(const WeightMode mode, ParseWeightMode(a.weights));
  ASSIGN_OR_RETURN(const uint64_t device_bytes, ParseBytes(a.device_bytes));
  const WeightType stored = WeightType::kBf16;
  Json report = {{"architecture", shape.config.architecture},
                 {"layers", shape.config.layers},
                 {"mode", a.weights},
                 {"tokens", tokens},
                 {"device_bytes", a.device_bytes},
                 {"weights", WeightsJson(shape, stored, mode)}};
  MeasuredRates products;
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Rates> rates;
  if (a.measure) {
    ASSIGN_OR_RETURN(backend, MakeBackend(a.device, {a.threads, a.isa}));
    const unsigned threads = a.threads != 0 ? a.threads : std::thread::hardware_concurrency();
    const double ceiling = MacsCeiling(MeasureCpuCeilings(threads, false), backend->name());
    report["backend"] = std::string(backend->name());
    report["threads"] = threads;
    report["gmacs_ceiling"] = ceiling;
    rates = std::make_unique<Rates>(*backend, shape.config, a, ceiling);
    RETURN_IF_ERROR(rates->Prepare());
    for (const PlannedProduct& product : ProductsOf(shape.config, stored, mode)) {
      RETURN_IF_ERROR(rates->AddProduct(product, &products));
    }
  }
  for (const std::string& name : a.kv_formats) {
    ASSIGN_OR_RETURN(const KvPlan kv, PlanKv(shape.config, name, tokens));
    const uint64_t together = kv.bytes + report["weights"]["bytes"].get<uint64_t>();
    Json plan = {{"kv", name},
                 {"token_bytes", kv.token_bytes},
                 {"bytes", kv.bytes},
                 {"with_weights", together},
                 {"devices", static_cast<double>(together) / static_cast<double>(device_bytes)}};
    if (rates != nullptr) {
      MeasuredRates all = products;
      RETURN_IF_ERROR(rates->AddAttention(name, &all));
      plan["time"] = ToJson(PlanTime(shape.config, all, tokens, kQuestionTokens));
    }
    report["plans"].push_back(plan);
  }
  if (rates != nullptr) RETURN_IF_ERROR(rates->status());
  if (rates != nullptr) report["rates"] = rates->TakeJson();
  if (a.format == "json") {
    std::cout << report.dump() << "\n";
  } else {
    Print(report);
  }
  return OkStatus();
}

}  // namespace

void AddPlanCommand(CLI::App& app, Status* status) {
  auto a = std::make_shared<Arguments>();
  CLI::App* const plan = app.add_subcommand(
      "plan",
      "memory and time of a corpus on a model of which only config.json is here, from rates that "
      "are measured on matrices and pages of its shape");
  plan->add_option("--config", a->config_path, "config.json, a folder with one, or a GGUF file")
      ->required();
  plan->add_option("--tokens", a->tokens, "of the corpus (10M; K and M of 1024)");
  plan->add_option("--weights", a->weights, "auto (bf16), bf16, int8, int4 (default)")
      ->check(CLI::IsMember({"auto", "bf16", "int8", "int4"}));
  plan->add_option("--kv-format,--kv-formats", a->kv_formats, "(cq4,cq2)")->delimiter(',');
  plan->add_option("--device-bytes", a->device_bytes, "memory of one device (141GB)");
  plan->add_option("--depth", a->depth, "tokens that attention is measured over (16384)")
      ->check(CLI::Range(1024U, 1U << 22));
  plan->add_flag("!--no-measure", a->measure, "bytes only");
  plan->add_option("--device", a->device, "cpu (default), auto, cuda:N");
  plan->add_option("--isa", a->isa, "auto, avx2, avx512, amx");
  plan->add_option("--threads", a->threads, "0: all");
  AddCommonOptions(plan, &a->smoke, &a->format);
  plan->callback([a, status] { *status = Plan(*a); });
}

}  // namespace corpusd
