// corpus-bench follow-up: what a question about a text costs that is stored, beside one that has to
// prefill the text first: from memory, and from disk after a restart, beside the disk's own rate.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cinttypes>
#include <fstream>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "engine/engine.h"
#include "store/base/units.h"
#include "tests/bench/bench_command.h"
#include "tests/bench/raw_disk.h"
#include "tests/eval/model_session.h"
#include "tests/support/temp_dir.h"

namespace corpusd {
namespace {

using nlohmann::json;

constexpr char kCorpus[] = "text", kQuestion[] = "What is this text about?";
constexpr uint64_t kRawDiskBytes = uint64_t{256} << 20;
constexpr uint64_t kSmokeTextBytes = 4000;

struct Arguments {
  ModelSessionOptions session;
  std::string kv_format = "cq4";
  std::string text_file;
  std::string host_bytes = "2GiB";
  std::string work_dir;
  size_t questions = 5;
  bool smoke = false;
  std::string format = "table";
};

// An engine over a store in one folder, which may be opened again.
class FollowUpBench {
 public:
  FollowUpBench(const Arguments& a, std::string folder) : a_(a), folder_(std::move(folder)) {}

  Status Open() {
    engine_.reset();
    store_.reset();
    BlockStoreOptions store;
    store.data_dir = folder_;
    ASSIGN_OR_RETURN(store.host_bytes, ParseBytes(a_.host_bytes));
    ASSIGN_OR_RETURN(store_, BlockStore::Open(store));
    EngineOptions options;
    options.model_path = a_.session.model_path;
    options.device = a_.session.device;
    options.isa = a_.session.isa;
    options.threads = a_.session.threads;
    options.calibration_dir = a_.session.calibration_dir;
    ASSIGN_OR_RETURN(engine_, Engine::Create(options, store_.get()));
    return engine_->ShapeOf(a_.kv_format).status();  // calibrates
  }

  // RETURNS the tokens of the corpus.
  Result<uint64_t> Prefill(const std::string& text) {
    ASSIGN_OR_RETURN(auto tokenizer, engine_->NewCorpusTokenizer("", false, 0));
    tokenizer->BeginSource("text");
    tokenizer->Append(text);
    tokenizer->EndSource();
    CorpusRequest request;
    request.name = kCorpus;
    request.mode = "exact";
    request.kv_format = a_.kv_format;
    ASSIGN_OR_RETURN(const CorpusRecord record,
                     engine_->CreateCorpus(request, std::move(tokenizer)));
    RETURN_IF_ERROR(engine_->Prefill(kCorpus, [](const PrefillProgress&) {}, {}));
    return record.tokens;
  }

  // Asks `count` times. answer: of the last.
  Result<json> Ask(size_t count, std::string* answer) {
    std::vector<double> first_token_ms;
    QuestionReport last;
    for (size_t i = 0; i < count; ++i) {
      QuestionRequest request;
      request.corpus = kCorpus;
      request.question = kQuestion;
      request.max_tokens = 8;
      ASSIGN_OR_RETURN(last, engine_->Ask(request, [](const AnswerDelta&) { return true; }, {}));
      first_token_ms.push_back(last.first_token_ms);
    }
    *answer = last.answer;
    const Spread spread = SpreadOf(first_token_ms);
    return json{{"first_token_ms", spread.median},
                {"min_ms", spread.min},
                {"max_ms", spread.max},
                {"computed_tokens", Computed(last)},
                {"cached_tokens", last.cached_tokens},
                {"device_bytes", last.device_bytes},
                {"host_bytes", last.host_bytes},
                {"disk_bytes", last.disk_bytes}};
  }
  std::string backend() const { return engine_->model().backend; }

 private:
  static uint64_t Computed(const QuestionReport& report) {
    return report.prompt_tokens - report.cached_tokens + report.recomputed_tokens;
  }

  const Arguments& a_;
  const std::string folder_;
  std::unique_ptr<BlockStore> store_;
  std::unique_ptr<Engine> engine_;
};

Result<std::string> TextOf(const Arguments& a) {
  if (a.text_file.empty()) {
    std::string text;
    while (text.size() < kSmokeTextBytes) text += "The lamp stood on the table by the window. ";
    return text;
  }
  std::ifstream file(a.text_file, std::ios::binary);
  if (!file) return NotFoundError("no such text: " + a.text_file);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

void Print(const json& report) {
  std::printf("%s, %s, %" PRIu64 " tokens: prefill %.2f s\n",
              report["backend"].get<std::string>().c_str(),
              report["kv_format"].get<std::string>().c_str(), report["tokens"].get<uint64_t>(),
              report["prefill_seconds"].get<double>());
  std::printf("%-16s %12s %10s %10s %10s\n", "first token", "ms", "computed", "from disk",
              "times cold");
  for (const char* name : {"cold", "from_memory", "after_restart"}) {
    const json& row = report[name];
    std::printf("%-16s %12.1f %10" PRIu64 " %7.1f MiB %9.0fx\n", name,
                row["first_token_ms"].get<double>(), row["computed_tokens"].get<uint64_t>(),
                row["disk_bytes"].get<double>() / (1 << 20), row["times_cold"].get<double>());
  }
  std::printf("raw disk, in order: %.2f GB/s, so what is read takes %.1f ms at least\n",
              report["raw_read_gb_per_s"].get<double>(), report["raw_read_ms"].get<double>());
}

Status Bench(Arguments a) {
  if (a.smoke) a.questions = 2;
  ASSIGN_OR_RETURN(const std::string text, TextOf(a));
  const TempDir temporary;
  const std::string folder = a.work_dir.empty() ? temporary.path() : a.work_dir;
  RawDisk raw(folder, a.smoke ? uint64_t{4} << 20 : kRawDiskBytes);
  RETURN_IF_ERROR(raw.Write().status());
  ASSIGN_OR_RETURN(const double raw_read, raw.ReadInOrder());
  json report = {{"kv_format", a.kv_format},
                 {"raw_read_gb_per_s", raw_read / 1e9},
                 {"raw_read_how", raw.how()}};
  FollowUpBench bench(a, folder + "/store");
  RETURN_IF_ERROR(bench.Open());
  report["backend"] = bench.backend();
  const auto start = BenchClock::now();
  ASSIGN_OR_RETURN(const uint64_t tokens, bench.Prefill(text));
  const double prefill_seconds = SecondsSince(start);
  report["tokens"] = tokens;
  report["prefill_seconds"] = prefill_seconds;
  std::string first, again, after;
  ASSIGN_OR_RETURN(report["cold"], bench.Ask(1, &first));
  ASSIGN_OR_RETURN(report["from_memory"], bench.Ask(a.questions, &again));
  RETURN_IF_ERROR(bench.Open());
  ASSIGN_OR_RETURN(report["after_restart"], bench.Ask(1, &after));
  // Cold: the text is prefilled first.
  json& cold = report["cold"];
  cold["first_token_ms"] = prefill_seconds * 1e3 + cold["first_token_ms"].get<double>();
  cold["computed_tokens"] = tokens + cold["computed_tokens"].get<uint64_t>();
  for (const char* name : {"cold", "from_memory", "after_restart"}) {
    json& row = report[name];
    row["times_cold"] = cold["first_token_ms"].get<double>() / row["first_token_ms"].get<double>();
  }
  report["raw_read_ms"] = report["after_restart"]["disk_bytes"].get<double>() / raw_read * 1e3;
  report["same_answers"] = first == again && first == after;
  if (a.format == "json") {
    std::cout << report.dump() << "\n";
  } else {
    Print(report);
  }
  return report["same_answers"].get<bool>() ? OkStatus() : InternalError("answers differ");
}

}  // namespace

void AddFollowUpCommand(CLI::App& app, Status* status) {
  auto a = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand(
      "follow-up",
      "a question about a stored text, from memory and after a restart, beside one that "
      "prefills the text");
  AddSessionOptions(command, &a->session);
  command->add_option("--kv-format", a->kv_format, "cq4");
  command->add_option("--text", a->text_file,
                      "a file that fits the model's context; default: some plain sentences");
  command->add_option("--host-bytes", a->host_bytes, "of the store's host tier (2GiB)");
  command->add_option("--work", a->work_dir, "a folder on the disk that is to be read");
  command->add_option("--questions", a->questions, "from memory (5)")->check(CLI::PositiveNumber);
  AddCommonOptions(command, &a->smoke, &a->format);
  command->callback([a, status] { *status = Bench(*a); });
}

}  // namespace corpusd
