// corpus-bench scout: the shape of Llama 4 Scout (or a smaller one) with random 4-bit weights over
// a corpus of random pages, on one device: memory, time a token by depth, prefill by depth of the
// history, and what a prefill of the whole corpus takes by those.
#include <CLI/CLI.hpp>
#include <cmath>
#include <iostream>
#include <nlohmann/json.hpp>
#include <random>

#include "engine/backend/device_backend.h"
#include "engine/model/hf_config.h"
#include "engine/model/model.h"
#include "engine/prefill/prefill_runner.h"
#include "tests/bench/bench_command.h"
#include "tests/bench/random_model.h"
#include "tests/bench/scout_shape.h"

namespace corpusd {
namespace {

using nlohmann::json;

struct Arguments {
  std::string device = "auto", kv_format = "cq2", format = "table";
  unsigned threads = 0;
  uint64_t tokens = 9'999'360;  // whole blocks; 5,120 of the last chunk of 8,192
  std::vector<uint64_t> decode_depths = {0, 131'072, 1'048'576};  // and `tokens`
  std::vector<uint64_t> prefill_depths = {0, 65'536, 262'144, 1'048'576};
  uint32_t steps = 16, repeats = 2;
  bool smoke = false;
};

constexpr uint32_t kTemplateBlocks = 64;  // encoded; all others are their copies, in another order
constexpr uint64_t kSlabBytes = uint64_t{1} << 30;

// Coordinates alike for all layers and heads: what they are costs no time.
std::unique_ptr<KvCalibration> AnyCalibration(const ModelConfig& c) {
  KvMoments moments;
  moments.mean.assign(c.head_dim, 0.1);
  moments.covariance.assign(size_t{c.head_dim} * c.head_dim, 0);
  for (uint32_t j = 0; j < c.head_dim; ++j) moments.covariance[j * c.head_dim + j] = 1 + 0.01 * j;
  moments.price = moments.covariance;
  const std::vector<KvCoordinateArrays> sides(size_t{c.layers} * c.kv_heads,
                                              *BuildCoordinates(moments, c.head_dim));
  return std::make_unique<KvCalibration>(KvCalibrationShape{c.layers, c.kv_heads, c.head_dim},
                                         sides, sides);
}

// Blocks of one part in the backend's memory.
struct Pages {
  std::vector<std::unique_ptr<Buffer>> slabs;
  std::vector<std::byte*> blocks;
  uint64_t bytes = 0;
};

class ScoutBench {
 public:
  static Result<std::unique_ptr<ScoutBench>> Make(const Arguments& a) {
    auto bench = std::unique_ptr<ScoutBench>(new ScoutBench(a));
    ASSIGN_OR_RETURN(bench->backend_, MakeBackend(a.device, {a.threads, "auto"}));
    ASSIGN_OR_RETURN(const HfConfig config, ReadHfConfig(ScoutShape(a.smoke), "the bench's shape"));
    const auto source = MakeRandomModel(config.model);
    const auto start = BenchClock::now();
    ASSIGN_OR_RETURN(bench->model_, LoadModel(*source, *bench->backend_));
    RETURN_IF_ERROR(bench->backend_->Synchronize());
    bench->report_["load_s"] = SecondsSince(start);
    ASSIGN_OR_RETURN(const KvFormat blocks, bench->model_->Format(a.kv_format));
    ASSIGN_OR_RETURN(const KvFormat own, bench->model_->Format("bf16"));
    bench->calibration_ = AnyCalibration(bench->model_->config());
    bench->layout_ = {blocks, own, IsCoded(blocks) ? bench->calibration_.get() : nullptr, nullptr,
                      bench->model_->parts()};
    RETURN_IF_ERROR(bench->MakePages());
    return bench;
  }

  Status Run() {
    report_["backend"] = std::string(backend_->name());
    report_["kv_format"] = a_.kv_format;
    report_["tokens"] = a_.tokens;
    RETURN_IF_ERROR(MeasureCopy());
    RETURN_IF_ERROR(MeasureDecode());
    RETURN_IF_ERROR(MeasurePrefill());
    Print();
    return OkStatus();
  }

 private:
  explicit ScoutBench(const Arguments& a) : a_(a) {}
  const ModelConfig& config() const { return model_->config(); }

  Result<std::unique_ptr<Buffer>> RandomRows(uint32_t rows, uint32_t cols) {
    ASSIGN_OR_RETURN(auto buffer, backend_->Allocate(uint64_t{rows} * cols * 4, "random rows"));
    std::vector<float> numbers(size_t{rows} * cols);
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    for (float& number : numbers) number = normal(random);
    RETURN_IF_ERROR(backend_->Copy(
        buffer->data(), reinterpret_cast<const std::byte*>(numbers.data()), numbers.size() * 4));
    return buffer;
  }

  // `count` blocks of a part: the first ones are encoded from random keys and values.
  Status FillPart(uint32_t part, uint64_t count, MatrixView rows, Pages* pages) {
    const KvFormat format = layout_.OfPart(layout_.blocks, part);
    const uint64_t block_bytes = format.BlockBytes(), each = kSlabBytes / block_bytes;
    while (pages->blocks.size() < count) {
      const uint64_t here = std::min(each, count - pages->blocks.size());
      ASSIGN_OR_RETURN(auto slab, backend_->Allocate(here * block_bytes, "pages"));
      for (uint64_t i = 0; i < here; ++i) {
        pages->blocks.push_back(slab->data() + i * block_bytes);
      }
      pages->bytes += here * block_bytes;
      pages->slabs.push_back(std::move(slab));
    }
    const uint32_t cols = config().kv_heads * config().head_dim;
    const auto templates = std::min<uint64_t>(kTemplateBlocks, count);
    for (uint32_t layer = 0; layer < config().layers; ++layer) {
      const LayerPlace place = layout_.parts->places[layer];
      if (place.part != part) continue;
      const KvBasis* const basis =
          layout_.calibration == nullptr ? nullptr : layout_.calibration->layer(layer);
      for (uint64_t block = 0; block < templates; ++block) {
        const auto first = static_cast<uint32_t>((block * 131 + layer * 17) % kBlockTokens);
        const MatrixView some = rows.Rows(first, kBlockTokens);
        backend_->WriteKv({&format, pages->blocks[block], place.index, 0, basis},
                          some.Cols(0, cols), some.Cols(cols, cols), nullptr);
      }
    }
    RETURN_IF_ERROR(backend_->Synchronize());
    std::vector<CopyPiece> copies;
    for (uint64_t block = templates; block < count; ++block) {
      copies.push_back({pages->blocks[block], pages->blocks[block * 37 % templates], block_bytes});
    }
    return backend_->CopyBeside(copies);
  }

  Status MakePages() {
    const auto start = BenchClock::now();
    CHECK(layout_.parts != nullptr && layout_.parts->parts.size() == 2) << "two kinds of layers";
    ASSIGN_OR_RETURN(const auto rows,
                     RandomRows(2 * kBlockTokens, 2 * config().kv_heads * config().head_dim));
    const MatrixView view =
        rows->Matrix(2 * kBlockTokens, 2 * config().kv_heads * config().head_dim);
    RETURN_IF_ERROR(FillPart(0, a_.tokens / kBlockTokens, view, &pages_));
    const uint32_t chunk = layout_.parts->parts[1].span_tokens;
    RETURN_IF_ERROR(FillPart(1, chunk / kBlockTokens, view, &tail_));
    report_["pages_s"] = SecondsSince(start);
    report_["memory"] = {
        {"weights_gb", WeightBytes() / 1e9},
        {"pages_gb", static_cast<double>(pages_.bytes) / 1e9},
        {"tail_gb", static_cast<double>(tail_.bytes) / 1e9},
        {"page_bytes_a_token", static_cast<double>(pages_.bytes) / static_cast<double>(a_.tokens)}};
    return OkStatus();
  }

  // 5 bits of each number of the layers, 16 of embedding, output and router.
  double WeightBytes() const {
    const ModelConfig& c = config();
    const double heads = double{1} * c.head_dim * (2 * c.q_heads + 2 * c.kv_heads);
    double coded = 0, wide = 2.0 * c.vocabulary * c.hidden;
    for (const LayerConfig& layer : c.layer_configs) {
      coded += c.hidden * heads + 3.0 * c.hidden * layer.feed_forward;
      if (!layer.experts) continue;
      coded += 3.0 * c.hidden * c.expert_feed_forward * c.experts;
      wide += double{1} * c.hidden * c.experts;
    }
    return coded * 5 / 8 + wide * 2;
  }
  // Of those, what one token reads.
  double ReadBytes() const {
    const ModelConfig& c = config();
    double unread = double{2} * c.vocabulary * c.hidden;  // the embedding
    for (const LayerConfig& layer : c.layer_configs) {
      if (!layer.experts) continue;
      unread += 3.0 * c.hidden * c.expert_feed_forward * (c.experts - c.experts_used) * 5 / 8;
    }
    return WeightBytes() - unread;
  }

  // A sequence over the first `depth` tokens; of the other part what its chunk holds.
  std::unique_ptr<KvSequence> SequenceAt(uint64_t depth, const KvLayout& layout) {
    auto kv = std::make_unique<KvSequence>(layout);
    const uint64_t chunk = layout.parts->parts[1].span_tokens;
    const uint64_t chunk_block = depth / chunk * chunk / kBlockTokens;
    for (uint64_t block = 0; block < depth / kBlockTokens; ++block) {
      const std::byte* local = nullptr;
      if (block >= chunk_block) local = tail_.blocks[block - chunk_block];
      kv->AddShared({pages_.blocks[block], kBlockTokens, 0, {&local, 1}});
    }
    return kv;
  }

  // Bytes read and written a second between the first two slabs.
  Status MeasureCopy() {
    if (pages_.slabs.size() < 2) return OkStatus();
    const uint64_t bytes = pages_.slabs[1]->bytes() / 64 * 64;
    std::vector<double> rates;
    for (int i = 0; i < 7; ++i) {
      const auto start = BenchClock::now();
      RETURN_IF_ERROR(backend_->Copy(pages_.slabs[1]->data(), pages_.slabs[0]->data(), bytes));
      rates.push_back(2 * static_cast<double>(bytes) / SecondsSince(start) / 1e9);
    }
    report_["copy_gb_per_s"] = SpreadOf(rates).median;
    return OkStatus();
  }

  Status MeasureDecode() {
    ASSIGN_OR_RETURN(const auto scratch, ForwardScratch::Create(*backend_, config(), 1));
    ASSIGN_OR_RETURN(const auto logits,
                     backend_->AllocateShared(uint64_t{config().vocabulary} * 4, "logits"));
    std::vector<uint64_t> depths = a_.decode_depths;
    depths.push_back(a_.tokens);
    double base_ms = 0;
    for (const uint64_t depth : depths) {
      if (depth > a_.tokens) continue;
      const auto kv = SequenceAt(depth, layout_);
      KvSequence* const sequence = kv.get();
      std::vector<double> ms;
      for (uint32_t step = 0; step < a_.steps + 2; ++step) {
        const TokenId id = step * 7919 % config().vocabulary;
        const auto start = BenchClock::now();
        RETURN_IF_ERROR(
            model_->ForwardEach({&id, 1}, {&sequence, 1}, *scratch, [] { return true; }));
        RETURN_IF_ERROR(model_->Logits(*scratch, 0, logits->Matrix(1, config().vocabulary)));
        if (step >= 2) ms.push_back(SecondsSince(start) * 1e3);
      }
      const float first = logits->Matrix(1, 1).data[0];
      if (!std::isfinite(first)) return InternalError("a logit is no number");
      const Spread spread = SpreadOf(ms);
      json line = {
          {"depth", depth}, {"ms", spread.median}, {"min", spread.min}, {"max", spread.max}};
      if (depth == 0) {
        base_ms = spread.median;
        line["weights_gb_per_s"] = ReadBytes() / spread.median / 1e6;
      } else {
        const double bytes = static_cast<double>(pages_.bytes) * static_cast<double>(depth) /
                             static_cast<double>(a_.tokens);
        line["pages_gb_per_s"] = bytes / (spread.median - base_ms) / 1e6;
      }
      report_["decode"].push_back(line);
      std::cerr << "decode " << line.dump() << std::endl;
    }
    return OkStatus();
  }

  Status MeasurePrefill() {
    ASSIGN_OR_RETURN(const auto scratch, ForwardScratch::Create(*backend_, config(), kRunTokens));
    std::vector<TokenId> ids;
    for (uint32_t i = 0; i < kRunTokens; ++i) ids.push_back(i * 7919 % config().vocabulary);
    std::vector<std::pair<double, double>> points;  // depth, seconds of a run
    for (const uint64_t depth : a_.prefill_depths) {
      if (depth > a_.tokens) continue;
      std::vector<double> seconds;
      for (uint32_t r = 0; r < a_.repeats + 1; ++r) {
        const auto kv = SequenceAt(depth, layout_.OfBlocks());
        const auto start = BenchClock::now();
        const Status status = model_->Forward(ids, *kv, *scratch, [] { return true; });
        if (!status.ok()) {
          report_["prefill"].push_back({{"depth", depth}, {"error", status.ToString()}});
          std::cerr << "prefill at " << depth << ": " << status.ToString() << std::endl;
          break;
        }
        if (r > 0) seconds.push_back(SecondsSince(start));
      }
      if (seconds.empty()) break;
      const Spread spread = SpreadOf(seconds);
      points.emplace_back(static_cast<double>(depth), spread.median);
      report_["prefill"].push_back({{"depth", depth},
                                    {"run_ms", spread.median * 1e3},
                                    {"min", spread.min * 1e3},
                                    {"max", spread.max * 1e3},
                                    {"tokens_per_s", kRunTokens / spread.median}});
      std::cerr << "prefill " << report_["prefill"].back().dump() << std::endl;
    }
    Project(points);
    return OkStatus();
  }

  // A run takes a + b * depth, by the first and the deepest point; so all runs together.
  void Project(const std::vector<std::pair<double, double>>& points) {
    if (points.size() < 2) return;
    const double a = points.front().second;
    const double b = (points.back().second - a) / points.back().first;
    const double runs = static_cast<double>(a_.tokens) / kRunTokens;
    report_["projection"] = {
        {"run_s_at_0", a},
        {"run_s_a_million_of_depth", b * 1e6},
        {"prefill_hours", runs * (a + b * static_cast<double>(a_.tokens) / 2) / 3600}};
  }

  void Print() const {
    if (a_.format == "json") {
      std::cout << report_.dump(1) << "\n";
      return;
    }
    const json& memory = report_["memory"];
    std::printf("%s, %s, %llu tokens: weights %.1f GB, pages %.1f GB, tail %.2f GB\n",
                report_["backend"].get<std::string>().c_str(), a_.kv_format.c_str(),
                static_cast<unsigned long long>(a_.tokens), memory["weights_gb"].get<double>(),
                memory["pages_gb"].get<double>(), memory["tail_gb"].get<double>());
    for (const char* const part : {"decode", "prefill"}) {
      if (!report_.contains(part)) continue;
      for (const json& line : report_[part]) std::printf("%s %s\n", part, line.dump().c_str());
    }
    if (report_.contains("projection")) {
      std::printf("projection %s\n", report_["projection"].dump().c_str());
    }
  }

  const Arguments a_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<KvCalibration> calibration_;
  KvLayout layout_;
  Pages pages_, tail_;
  json report_ = {{"decode", json::array()}, {"prefill", json::array()}};
};

Status Bench(Arguments a) {
  if (a.smoke) {
    a.tokens = 4096 + 384;
    a.decode_depths = {0, 2048};
    a.prefill_depths = {0, 4096};
    a.steps = 2;
    a.repeats = 1;
  }
  a.tokens = a.tokens / kBlockTokens * kBlockTokens;
  ASSIGN_OR_RETURN(const auto bench, ScoutBench::Make(a));
  return bench->Run();
}

}  // namespace

void AddScoutCommand(CLI::App& app, Status* status) {
  const auto a = std::make_shared<Arguments>();
  auto* command = app.add_subcommand(
      "scout", "the shape of Llama 4 Scout with random weights and pages on one device");
  command->add_option("--device", a->device, "auto (default), cpu, cuda:N");
  command->add_option("--threads", a->threads, "0: all");
  command->add_option("--tokens", a->tokens, "of the corpus");
  command->add_option("--kv-format", a->kv_format, "cq2 (default), cq4, ...");
  command->add_option("--decode-depths", a->decode_depths, "beside --tokens")->delimiter(',');
  command->add_option("--prefill-depths", a->prefill_depths, "multiples of a chunk")
      ->delimiter(',');
  command->add_option("--steps", a->steps, "decoded at each depth")->check(CLI::Range(1, 1000));
  command->add_option("--repeats", a->repeats, "runs prefilled at each depth")
      ->check(CLI::Range(1, 100));
  AddCommonOptions(command, &a->smoke, &a->format);
  command->callback([a, status] { *status = Bench(*a); });
}

}  // namespace corpusd
