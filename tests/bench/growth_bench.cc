// corpus-bench growth: an exact corpus that is larger than the host tier, prefilled over its own
// history from disk and asked; what a token costs, how much memory is in use and what is read, by
// depth, beside the disk's own rate and the processor's peak.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cinttypes>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <thread>

#include "engine/engine.h"
#include "store/base/sha256.h"
#include "store/base/units.h"
#include "store/corpus_parts.h"
#include "tests/bench/bench_command.h"
#include "tests/bench/cpu_ceilings.h"
#include "tests/bench/process_cost.h"
#include "tests/bench/raw_disk.h"
#include "tests/eval/model_session.h"
#include "tests/eval/recall_statistics.h"
#include "tests/eval/recall_task.h"
#include "tests/support/temp_dir.h"

namespace corpusd {
namespace {

using nlohmann::json;

// As corpus-eval recall --mode stored: what it asks of the same length, this asks, too.
constexpr uint32_t kFrameTokens = 276;
constexpr uint32_t kAnswerTokens = 12;
constexpr size_t kAskedAgain = 3;  // after a restart
constexpr uint64_t kRawDiskBytes = uint64_t{256} << 20;

struct Arguments {
  ModelSessionOptions session;
  std::string kv_format = "bf16";
  uint64_t tokens = 262'144;
  std::string host_bytes = "16MiB";
  std::string work_dir;
  uint32_t reports = 16;
  size_t questions = 50;
  bool check = false;
  bool smoke = false;
  std::string format = "table";
};

// The cost of one stretch after the other, from what a prefill reports after every run.
class Stretches {
 public:
  Stretches(uint64_t stretch_tokens, uint64_t history_bytes_per_token, double attention_macs)
      : stretch_tokens_(stretch_tokens),
        history_bytes_per_token_(history_bytes_per_token),
        attention_macs_(attention_macs) {}

  void OnProgress(const PrefillProgress& now) {
    if (!begun_) {
      begun_ = true;
      Begin(now);
      return;
    }
    // The run saw all that was durable before it.
    stored_bytes_ += static_cast<double>(last_.done_tokens * history_bytes_per_token_);
    last_ = now;
    if (now.done_tokens - first_.done_tokens < stretch_tokens_ &&
        now.done_tokens < now.total_tokens) {
      return;
    }
    Report();
    Begin(now);
  }
  const json& rows() const { return rows_; }

 private:
  void Begin(const PrefillProgress& now) {
    first_ = last_ = now;
    stored_bytes_ = 0;
    start_ = BenchClock::now();
    processor_ = ProcessorSeconds();
    (void)TakePeakMemory();
  }

  void Report() {
    const double seconds = SecondsSince(start_);
    const double processor = ProcessorSeconds() - processor_;
    const auto tokens = static_cast<double>(last_.done_tokens - first_.done_tokens);
    const auto bytes = static_cast<double>(last_.history.bytes - first_.history.bytes);
    const double reading = last_.history.read_seconds - first_.history.read_seconds;
    const double waited = last_.history.waited_seconds - first_.history.waited_seconds;
    const double depth = static_cast<double>(first_.done_tokens + last_.done_tokens) / 2;
    rows_.push_back(
        {{"tokens", last_.done_tokens},
         {"tokens_per_s", tokens / seconds},
         {"processor_us_per_token", processor / tokens * 1e6},
         {"attention_gmacs_per_processor_s", attention_macs_ * depth * tokens / processor / 1e9},
         {"peak_memory_mib", TakePeakMemory()},
         {"disk_bytes_per_token", bytes / tokens},
         {"disk_bytes_of_stored", stored_bytes_ > 0 ? bytes / stored_bytes_ : 0},
         {"read_seconds", reading},
         {"waited_seconds", waited},
         {"disk_gb_per_s", reading > 0 ? bytes / reading / 1e9 : 0},
         {"hidden_share", reading > 0 ? 1 - std::min(1.0, waited / reading) : 1}});
    std::fprintf(stderr, "%s\n", rows_.back().dump().c_str());
  }

  const uint64_t stretch_tokens_;
  const uint64_t history_bytes_per_token_;
  const double attention_macs_;  // of a token over one token of its history
  bool begun_ = false;
  PrefillProgress first_, last_;
  double stored_bytes_ = 0;  // of the histories that the runs of a stretch saw
  BenchClock::time_point start_;
  double processor_ = 0;
  json rows_ = json::array();
};

// Store and engine over one folder, with a host tier of so many bytes.
class GrowthBench {
 public:
  GrowthBench(const Arguments& a, std::string folder) : a_(a), folder_(std::move(folder)) {}

  Status Open(uint64_t host_bytes) {
    engine_.reset();
    store_.reset();
    BlockStoreOptions store;
    store.data_dir = folder_;
    store.host_bytes = host_bytes;
    ASSIGN_OR_RETURN(store_, BlockStore::Open(store));
    EngineOptions options;
    options.model_path = a_.session.model_path;
    options.isa = a_.session.isa;
    options.threads = a_.session.threads;
    options.calibration_dir = a_.session.calibration_dir;
    ASSIGN_OR_RETURN(engine_, Engine::Create(options, store_.get()));
    return engine_->ShapeOf(a_.kv_format).status();  // calibrates
  }

  // A corpus of the first `tokens` tokens of the text.
  Result<CorpusRecord> Create(const std::string& text) {
    ASSIGN_OR_RETURN(auto tokenizer, engine_->NewCorpusTokenizer("", false, 0));
    tokenizer->BeginSource("text");
    tokenizer->Append(text);
    tokenizer->EndSource();
    CorpusRequest request;
    request.name = "grown";
    request.mode = "exact";
    request.kv_format = a_.kv_format;
    return engine_->CreateCorpus(request, std::move(tokenizer));
  }

  Result<json> Prefill(uint64_t stretch_tokens, double attention_macs) {
    ASSIGN_OR_RETURN(const CorpusShape shape, engine_->ShapeOf(a_.kv_format));
    Stretches stretches(stretch_tokens, shape.block_bytes / shape.block_tokens, attention_macs);
    RETURN_IF_ERROR(engine_->Prefill(
        "grown", [&](const PrefillProgress& now) { stretches.OnProgress(now); }, {}));
    return stretches.rows();
  }

  // Over the payload of all blocks and parts, past the host tier.
  Result<std::string> PayloadDigest() {
    ASSIGN_OR_RETURN(const CorpusRecord record, store_->GetCorpus("grown"));
    Sha256 sha;
    std::vector<std::byte> payload;
    uint32_t sections = 0;
    for (const Digest& digest : AllDigests(record)) {
      RETURN_IF_ERROR(store_->ReadBlock(digest, &payload, &sections));
      sha.Update(payload);
    }
    return HexText(sha.Finish());
  }

  // Asks the first questions of the case; `answers` gets what was answered.
  Result<json> Ask(const RecallCase& recall, size_t count, std::vector<std::string>* answers) {
    ASSIGN_OR_RETURN(const CorpusRecord record, store_->GetCorpus("grown"));
    const auto stored =
        static_cast<double>(record.block_bytes) * static_cast<double>(record.chain.size());
    count = std::min(count, recall.questions.size());
    const double processor = ProcessorSeconds();
    (void)TakePeakMemory();
    std::vector<double> first_token_ms;
    double bytes = 0, passes = 0;
    json deciles = json::array();
    for (uint32_t d = 0; d < kDeciles; ++d) deciles.push_back({{"asked", 0}, {"hits", 0}});
    size_t right = 0;
    for (size_t i = 0; i < count; ++i) {
      const RecallQuestion& question = recall.questions[i];
      QuestionRequest request;
      request.corpus = "grown";
      request.question = question.text;
      request.max_tokens = kAnswerTokens;
      ASSIGN_OR_RETURN(const QuestionReport report,
                       engine_->Ask(request, [](const AnswerDelta&) { return true; }, {}));
      answers->push_back(report.answer);
      first_token_ms.push_back(report.first_token_ms);
      bytes += static_cast<double>(report.disk_bytes);
      passes += static_cast<double>(report.completion_tokens);
      const bool hit = ClassifyAnswer(recall, question, report.answer) == RecallOutcome::kHit;
      json& decile = deciles[question.decile];
      decile["asked"] = decile["asked"].get<size_t>() + 1;
      decile["hits"] = decile["hits"].get<size_t>() + (hit ? 1 : 0);
      right += hit ? 1 : 0;
    }
    return json{{"asked", count},
                {"right", right},
                {"deciles", deciles},
                {"first_token_ms", SpreadOf(first_token_ms).median},
                {"processor_seconds_each", (ProcessorSeconds() - processor) / count},
                {"disk_bytes_each", bytes / count},
                {"disk_bytes_of_stored_a_token", bytes / (passes * stored)},
                {"peak_memory_mib", TakePeakMemory()}};
  }

  Result<json> Sizes() {
    ASSIGN_OR_RETURN(const CorpusRecord record, store_->GetCorpus("grown"));
    const CorpusUsage usage = store_->UsageOf(record);
    return json{{"tokens", record.tokens},
                {"stored_bytes", usage.stored_bytes},
                {"history_bytes", record.block_bytes * record.chain.size()},
                {"resumed_times", record.resumed_times}};
  }
  Status Remove() { return store_->RemoveCorpus("grown"); }
  std::string backend() const { return engine_->model().backend; }
  uint64_t CountTokens(std::string_view text) const {
    return engine_->Tokenize(text, false).size();
  }

 private:
  const Arguments& a_;
  const std::string folder_;
  std::unique_ptr<BlockStore> store_;
  std::unique_ptr<Engine> engine_;
};

// Random sentences with pairs between them, and questions for those.
Result<RecallCase> CaseOf(const GrowthBench& bench, uint64_t tokens) {
  RecallCaseOptions options;
  options.task = RecallTask::kPairs;
  options.length = static_cast<uint32_t>(std::min<uint64_t>(tokens, UINT32_MAX));
  options.seed = 1;
  options.haystack_tokens = options.length - std::min(options.length, kFrameTokens);
  options.count_tokens = [&](std::string_view text) { return bench.CountTokens(text); };
  return MakeRecallCase(options);
}

// Multiply-adds of a token over one token of its history in a prefill, whose last layer attends to
// nothing.
Result<double> AttentionMacs(const Arguments& a) {
  ASSIGN_OR_RETURN(const auto session, ModelSession::Open(a.session));
  const ModelConfig& c = session->model().config();
  uint32_t layers = 0;
  for (uint32_t i = 0; i + 1 < c.layers; ++i) {
    layers += c.layer_configs[i].span == AttentionSpan::kAll ? 1 : 0;
  }
  return 2.0 * layers * c.q_heads * c.head_dim;
}

// The same corpus with all of its history in memory.
Status CheckBytes(const RecallCase& recall, const std::vector<std::string>& expected,
                  uint64_t host_bytes, GrowthBench* bench, json* report) {
  ASSIGN_OR_RETURN((*report)["payload_sha256"], bench->PayloadDigest());
  RETURN_IF_ERROR(bench->Remove());
  RETURN_IF_ERROR(bench->Open(host_bytes));
  RETURN_IF_ERROR(bench->Create(recall.haystack).status());
  json& memory = (*report)["in_memory"];
  memory["host_bytes"] = host_bytes;
  const double processor = ProcessorSeconds();
  const auto start = BenchClock::now();
  RETURN_IF_ERROR(bench->Prefill(UINT64_MAX, 0).status());
  memory["seconds"] = SecondsSince(start);
  memory["processor_seconds"] = ProcessorSeconds() - processor;
  ASSIGN_OR_RETURN(memory["payload_sha256"], bench->PayloadDigest());
  std::vector<std::string> answers;
  ASSIGN_OR_RETURN(memory["questions"], bench->Ask(recall, expected.size(), &answers));
  memory["same_answers"] = answers == expected;
  if (answers == expected && memory["payload_sha256"] == (*report)["payload_sha256"]) {
    return OkStatus();
  }
  return InternalError("bytes or answers differ from those in memory");
}

void Print(const json& report) {
  std::printf("%s, %s: %" PRIu64 " tokens, %.1f MiB stored, host tier %.1f MiB\n",
              report["backend"].get<std::string>().c_str(),
              report["kv_format"].get<std::string>().c_str(),
              report["corpus"]["tokens"].get<uint64_t>(),
              report["corpus"]["stored_bytes"].get<double>() / (1 << 20),
              report["host_bytes"].get<double>() / (1 << 20));
  std::printf("%9s %9s %9s %9s %10s %8s %8s %8s\n", "tokens", "tokens/s", "us a tok.", "peak MiB",
              "read/token", "of held", "GB/s", "hidden");
  for (const json& r : report["depths"]) {
    std::printf("%9" PRIu64 " %9.0f %9.0f %9.1f %10.0f %7.2fx %8.2f %7.0f%%\n",
                r["tokens"].get<uint64_t>(), r["tokens_per_s"].get<double>(),
                r["processor_us_per_token"].get<double>(), r["peak_memory_mib"].get<double>(),
                r["disk_bytes_per_token"].get<double>(), r["disk_bytes_of_stored"].get<double>(),
                r["disk_gb_per_s"].get<double>(), 100 * r["hidden_share"].get<double>());
  }
  const json& asked = report["questions"];
  std::printf("asked %zu: %zu right, first token %.0f ms, %.2f of the stored bytes read a token\n",
              asked["asked"].get<size_t>(), asked["right"].get<size_t>(),
              asked["first_token_ms"].get<double>(),
              asked["disk_bytes_of_stored_a_token"].get<double>());
  std::printf("%.1f MiB before it; ", report["memory_before_mib"].get<double>());
  std::printf("raw disk, direct, in order: %.2f GB/s\n", report["raw_read_gb_per_s"].get<double>());
}

Status Bench(Arguments a) {
  if (a.smoke) {
    a.tokens = 10'000;
    a.host_bytes = "4MiB";  // of 5 MB
    a.reports = 2;
    a.questions = 4;
    a.check = true;
  }
  ASSIGN_OR_RETURN(const uint64_t host_bytes, ParseBytes(a.host_bytes));
  ASSIGN_OR_RETURN(const double attention_macs, AttentionMacs(a));
  const TempDir temporary;
  const std::string folder = a.work_dir.empty() ? temporary.path() : a.work_dir;
  json report = {{"kv_format", a.kv_format}, {"host_bytes", host_bytes}};
  RawDisk raw(folder, a.smoke ? uint64_t{4} << 20 : kRawDiskBytes);
  RETURN_IF_ERROR(raw.Write().status());
  ASSIGN_OR_RETURN(const double raw_read, raw.ReadInOrder());
  report["raw_read_gb_per_s"] = raw_read / 1e9;
  report["raw_read_how"] = raw.how();
  const unsigned threads =
      a.session.threads == 0 ? std::thread::hardware_concurrency() : a.session.threads;
  report["threads"] = threads;
  report["amx_gmacs_per_thread"] = MeasureCpuCeilings(1, /*processor_time=*/true).amx_bf16_gmacs;

  GrowthBench bench(a, folder + "/store");
  RETURN_IF_ERROR(bench.Open(host_bytes));
  (void)TakePeakMemory();
  report["memory_before_mib"] = TakePeakMemory();
  report["backend"] = bench.backend();
  ASSIGN_OR_RETURN(const RecallCase recall, CaseOf(bench, a.tokens));
  ASSIGN_OR_RETURN(const CorpusRecord record, bench.Create(recall.haystack));
  const auto start = BenchClock::now();
  const double processor = ProcessorSeconds();
  ASSIGN_OR_RETURN(report["depths"],
                   bench.Prefill(std::max<uint64_t>(record.tokens / a.reports, 1), attention_macs));
  report["prefill_seconds"] = SecondsSince(start);
  report["prefill_processor_seconds"] = ProcessorSeconds() - processor;
  ASSIGN_OR_RETURN(report["corpus"], bench.Sizes());
  std::vector<std::string> answers, again;
  ASSIGN_OR_RETURN(report["questions"], bench.Ask(recall, a.questions, &answers));
  RETURN_IF_ERROR(bench.Open(host_bytes));
  ASSIGN_OR_RETURN(report["after_restart"], bench.Ask(recall, kAskedAgain, &again));
  again.resize(std::min(again.size(), answers.size()));
  report["after_restart"]["same_answers"] = std::equal(again.begin(), again.end(), answers.begin());
  Status checked;
  if (a.check) {
    const uint64_t all = 2 * report["corpus"]["stored_bytes"].get<uint64_t>() + (64 << 20);
    checked = CheckBytes(recall, answers, all, &bench, &report);
  }
  if (a.format == "json") {
    std::cout << report.dump() << "\n";
  } else {
    Print(report);
  }
  return checked;
}

}  // namespace

void AddGrowthCommand(CLI::App& app, Status* status) {
  auto a = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand(
      "growth", "an exact corpus larger than the host tier: cost, memory and bytes read by depth");
  command->add_option("--model", a->session.model_path, "GGUF file, or a folder")->required();
  command->add_option("--isa", a->session.isa, "auto, avx2, avx512, amx");
  command->add_option("--threads", a->session.threads, "0: all");
  command->add_option("--calibration-dir", a->session.calibration_dir,
                      "where calibrations of cq formats are kept");
  command->add_option("--kv-format", a->kv_format, "bf16");
  command->add_option("--tokens", a->tokens, "of the corpus with a question, at most (262144)");
  command->add_option("--host-bytes", a->host_bytes, "of the store's host tier (16MiB)");
  command->add_option("--work", a->work_dir, "a folder on the disk that is to be read");
  command->add_option("--reports", a->reports, "rows of the table (16)");
  command->add_option("--questions", a->questions, "at most (50)");
  command->add_flag("--check", a->check,
                    "prefill it once more with all of it in memory; fail if a byte differs");
  AddCommonOptions(command, &a->smoke, &a->format);
  command->callback([a, status] { *status = Bench(*a); });
}

}  // namespace corpusd
