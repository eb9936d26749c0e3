// corpus-bench step: where the time of a decode step goes, for one question and for several on one
// corpus: milliseconds of each kind of call that the model makes of its backend, beside ceilings of
// the same run.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "engine/backend/forwarding_backend.h"
#include "tests/bench/bench_command.h"
#include "tests/bench/cpu_ceilings.h"
#include "tests/bench/shared_sequences.h"
#include "tests/eval/model_session.h"
#include "tests/support/read_file.h"

namespace corpusd {
namespace {

using nlohmann::json;

struct Arguments {
  ModelSessionOptions session;
  std::string text_path = "/usr/share/common-licenses/GPL-3";
  std::string kv_format = "cq4";
  std::vector<uint32_t> depths = {1024, 7168};
  uint32_t together = 16;
  uint32_t steps = 32;
  bool processor_time = false;
  bool smoke = false;
  std::string format = "table";
};

// Times the calls that a decode makes, by kind. The time is that of the calling thread, which waits
// for all others; with processor_time, of the process.
class TimedBackend : public ForwardingBackend {
 public:
  TimedBackend(std::unique_ptr<Backend> local, bool processor_time)
      : ForwardingBackend(*local), owned_(std::move(local)), processor_time_(processor_time) {}

  // Milliseconds by kind since the last call.
  std::map<std::string, double> Take() { return std::exchange(milliseconds_, {}); }

  void Embed(MatrixView out, const Weight& table, std::span<const uint32_t> ids) override {
    Timed("other", [&] { local_.Embed(out, table, ids); });
  }
  void RmsNorm(MatrixView out, MatrixView x, const float* gain, float epsilon) override {
    Timed("norms, SwiGLU", [&] { local_.RmsNorm(out, x, gain, epsilon); });
  }
  void SwiGlu(MatrixView out, MatrixView gate_up) override {
    Timed("norms, SwiGLU", [&] { local_.SwiGlu(out, gate_up); });
  }
  void MatMul(MatrixView out, MatrixView x, const Weight& weight, bool accumulate) override {
    const bool head = weight.rows() > 16 * weight.cols();
    Timed(head ? "product, head"
               : "product " + std::to_string(weight.rows()) + " x " + std::to_string(weight.cols()),
          [&] { local_.MatMul(out, x, weight, accumulate); });
  }
  void WriteKv(const KvWriteTarget& target, MatrixView keys, MatrixView values,
               const RopeTable* rope) override {
    Timed("keys and values", [&] { local_.WriteKv(target, keys, values, rope); });
  }
  void WriteKvEach(std::span<const KvWriteTarget> targets, MatrixView keys, MatrixView values,
                   const RopeTable* rope) override {
    Timed("keys and values", [&] { local_.WriteKvEach(targets, keys, values, rope); });
  }
  void AttentionEach(MatrixView out, MatrixView q, std::span<const AttentionInput> rows) override {
    Timed("attention", [&] { local_.AttentionEach(out, q, rows); });
  }

 private:
  template <typename Call>
  void Timed(const std::string& kind, const Call& call) {
    const double start = BenchSeconds(processor_time_);
    call();
    milliseconds_[kind] += (BenchSeconds(processor_time_) - start) * 1e3;
  }

  std::unique_ptr<Backend> owned_;
  bool processor_time_;
  std::map<std::string, double> milliseconds_;
};

// By kind, one value a step; "step" is all of it.
using Steps = std::map<std::string, std::vector<double>>;

Result<Steps> TimeSteps(ModelSession& session, TimedBackend& timed, const Arguments& a,
                        std::span<KvSequence* const> sequences, std::span<const TokenId> ids) {
  const auto rows = static_cast<uint32_t>(sequences.size());
  const ModelConfig& config = session.model().config();
  ASSIGN_OR_RETURN(const auto scratch, ForwardScratch::Create(session.backend(), config, rows));
  ASSIGN_OR_RETURN(const auto logits, session.backend().AllocateShared(
                                          uint64_t{config.vocabulary} * rows * 4, "logits"));
  Steps steps;
  for (uint32_t step = 0; step <= a.steps; ++step) {
    std::vector<TokenId> tokens;
    for (uint32_t r = 0; r < rows; ++r) tokens.push_back(ids[(step * rows + r) % ids.size()]);
    timed.Take();
    const double start = BenchSeconds(a.processor_time);
    RETURN_IF_ERROR(session.model().ForwardEach(tokens, sequences, *scratch, [] { return true; }));
    RETURN_IF_ERROR(session.model().Logits(*scratch, 0, logits->Matrix(rows, config.vocabulary)));
    const double all = (BenchSeconds(a.processor_time) - start) * 1e3;
    if (step == 0) continue;  // memory is touched for the first time
    double named = 0;
    for (const auto& [kind, milliseconds] : timed.Take()) {
      steps[kind].push_back(milliseconds);
      named += milliseconds;
    }
    steps["other"].back() += all - named;
    steps["step"].push_back(all);
  }
  return steps;
}

// A step of one and of all sequences over one corpus of `depth` tokens.
Result<json> BenchDepth(ModelSession& session, TimedBackend& timed, const Arguments& a,
                        uint32_t depth, std::span<const TokenId> ids) {
  ASSIGN_OR_RETURN(const KvLayout layout, session.Layout(a.kv_format));
  ASSIGN_OR_RETURN(const auto corpus, session.NewSequence(a.kv_format));
  RETURN_IF_ERROR(session.Run(ids.first(depth), *corpus, nullptr));
  const auto sequences = SharedSequences(layout, *corpus, a.together);
  std::vector<KvSequence*> pointers;
  for (const auto& sequence : sequences) pointers.push_back(sequence.get());
  json result = {{"depth", depth}};
  for (const size_t count : {size_t{1}, pointers.size()}) {
    ASSIGN_OR_RETURN(const Steps steps,
                     TimeSteps(session, timed, a, std::span(pointers).first(count), ids));
    json kinds;
    for (const auto& [kind, values] : steps) {
      const Spread spread = SpreadOf(values);
      kinds[kind] = {{"median_ms", spread.median}, {"min_ms", spread.min}};
    }
    result[count == 1 ? "one" : "together"] = kinds;
  }
  return result;
}

void Print(const json& report, const std::string& format) {
  if (format == "json") {
    std::cout << report.dump() << "\n";
    return;
  }
  std::printf("%s, %u threads, KV %s, %s; ceilings of this run: %.0f GMAC/s AMX, %.1f GB/s read\n",
              report["backend"].get<std::string>().c_str(), report["threads"].get<unsigned>(),
              report["kv_format"].get<std::string>().c_str(),
              report["clock"].get<std::string>().c_str(), report["amx_gmacs"].get<double>(),
              report["read_gb_per_s"].get<double>());
  for (const json& depth : report["depths"]) {
    std::printf("\ndepth %u, ms a step, median (least) %12s %22s\n", depth["depth"].get<unsigned>(),
                "1", std::to_string(report["together"].get<unsigned>()).c_str());
    for (const auto& [kind, all] : depth["together"].items()) {
      const json& one = depth["one"][kind];
      std::printf("  %-28s %9.3f (%8.3f) %9.3f (%8.3f)\n", kind.c_str(),
                  one["median_ms"].get<double>(), one["min_ms"].get<double>(),
                  all["median_ms"].get<double>(), all["min_ms"].get<double>());
    }
  }
}

Status Bench(Arguments a) {
  if (a.smoke) {
    a.depths = {256};
    a.together = 3;
    a.steps = 2;
  }
  TimedBackend* timed = nullptr;
  a.session.wrap = [&](std::unique_ptr<Backend> backend) {
    auto wrapped = std::make_unique<TimedBackend>(std::move(backend), a.processor_time);
    timed = wrapped.get();
    return wrapped;
  };
  if (a.processor_time) a.session.threads = 1;
  ASSIGN_OR_RETURN(const auto session, ModelSession::Open(a.session));
  ASSIGN_OR_RETURN(const std::string text, ReadFile(a.text_path));
  std::vector<TokenId> ids;
  session->tokenizer().Encode(text, /*parse_special=*/false, &ids);
  const uint32_t limit = session->model().config().context_tokens - 2 * (a.steps + 1);
  for (const uint32_t depth : a.depths) {
    if (depth == 0 || depth > limit || depth > ids.size()) {
      return InvalidArgumentError("a depth must be 1 to " +
                                  std::to_string(std::min<size_t>(limit, ids.size())));
    }
  }
  const unsigned threads =
      a.session.threads != 0 ? a.session.threads : std::thread::hardware_concurrency();
  const CpuCeilings ceilings = MeasureCpuCeilings(threads, a.processor_time);
  json report = {{"backend", session->backend_name()},
                 {"threads", threads},
                 {"kv_format", a.kv_format},
                 {"clock", a.processor_time ? "processor time" : "wall clock"},
                 {"together", a.together},
                 {"steps", a.steps},
                 {"amx_gmacs", ceilings.amx_bf16_gmacs},
                 {"read_gb_per_s", ceilings.read_gbytes}};
  for (const uint32_t depth : a.depths) {
    ASSIGN_OR_RETURN(json result, BenchDepth(*session, *timed, a, depth, ids));
    report["depths"].push_back(std::move(result));
  }
  Print(report, a.format);
  return OkStatus();
}

}  // namespace

void AddStepCommand(CLI::App& app, Status* status) {
  const auto a = std::make_shared<Arguments>();
  auto* command = app.add_subcommand("step", "where the time of a decode step goes");
  command->add_option("--model", a->session.model_path, "GGUF file")->required();
  command->add_option("--text", a->text_path, "what the corpus is made of (the GPL)");
  command->add_option("--kv-format", a->kv_format, "cq4 (default), bf16, int8, cq8, ...");
  command->add_option("--calibration-dir", a->session.calibration_dir,
                      "where calibrations of cq formats are kept");
  command->add_option("--isa", a->session.isa, "auto, avx2, avx512, avx512vnni, amx");
  command->add_option("--threads", a->session.threads, "0: all");
  command->add_option("--depths", a->depths, "tokens of the corpus")->delimiter(',');
  command->add_option("--together", a->together, "questions that decode at once")
      ->check(CLI::Range(2, 16));
  command->add_option("--steps", a->steps, "timed of each")->check(CLI::Range(1, 200));
  command->add_flag("--processor-time", a->processor_time,
                    "of one thread, so that others on the machine do not count");
  AddCommonOptions(command, &a->smoke, &a->format);
  command->callback([a, status] { *status = Bench(*a); });
}

}  // namespace corpusd
