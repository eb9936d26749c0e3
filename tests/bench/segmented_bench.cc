// corpus-bench segmented: what a token of a segmented corpus costs to prefill, whatever the corpus:
// real files, cut into documents of one size or another, into a fresh store; beside the model
// alone.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cinttypes>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "engine/engine.h"
#include "store/corpus_chain.h"
#include "tests/bench/bench_command.h"
#include "tests/bench/process_cost.h"
#include "tests/eval/model_session.h"
#include "tests/support/read_file.h"
#include "tests/support/temp_dir.h"

namespace corpusd {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

// Of text that is read for a token that is wanted.
constexpr uint64_t kBytesPerTokenMax = 8;

struct Arguments {
  ModelSessionOptions session;
  std::string text_path = "/usr/share/common-licenses";
  std::string kv_format = "cq4";
  std::vector<uint64_t> tokens = {10'000, 100'000, 1'000'000};
  std::vector<uint64_t> document_bytes = {0};
  uint64_t host_bytes = uint64_t{256} << 20;
  double flat_within = 0;
  bool smoke = false;
  std::string format = "table";
};

// At most so many bytes and a file more.
Result<std::vector<std::string>> ReadTexts(const std::string& path, uint64_t bytes_max) {
  std::vector<fs::path> files;
  std::error_code error;
  if (fs::is_directory(path, error)) {
    for (const auto& entry : fs::recursive_directory_iterator(path, error)) {
      if (entry.is_regular_file(error) && !entry.is_symlink(error)) files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());
  } else {
    files.push_back(path);
  }
  std::vector<std::string> texts;
  uint64_t bytes = 0;
  for (const fs::path& file : files) {
    if (bytes >= bytes_max) break;
    ASSIGN_OR_RETURN(std::string text, ReadFile(file.string()));
    bytes += text.size();
    if (!text.empty()) texts.push_back(std::move(text));
  }
  if (texts.empty()) return InvalidArgumentError(path + " holds no text");
  return texts;
}

// Documents of so many bytes (0: the files as they are) until the corpus has so many tokens. No
// text is taken twice: RETURNS how many documents there were.
size_t TakeDocuments(const std::vector<std::string>& texts, uint64_t document_bytes,
                     uint64_t tokens, CorpusTokenizer& tokenizer) {
  size_t documents = 0;
  for (const std::string& text : texts) {
    const size_t step = document_bytes == 0 ? text.size() : document_bytes;
    for (size_t at = 0; at < text.size() && tokenizer.tokens() < tokens; at += step) {
      tokenizer.BeginSource("document-" + std::to_string(documents++) + ".txt");
      tokenizer.Append(std::string_view(text).substr(at, step));
      tokenizer.EndSource();
    }
  }
  return documents;
}

Result<json> BenchCorpus(const Arguments& a, const std::vector<std::string>& texts,
                         uint64_t document_bytes, uint64_t tokens) {
  const TempDir folder;
  BlockStoreOptions store_options;
  store_options.data_dir = folder.path();
  store_options.host_bytes = a.host_bytes;
  ASSIGN_OR_RETURN(const auto store, BlockStore::Open(store_options));
  EngineOptions options;
  options.model_path = a.session.model_path;
  options.device = a.session.device;
  options.isa = a.session.isa;
  options.threads = a.session.threads;
  options.calibration_dir = a.session.calibration_dir;
  ASSIGN_OR_RETURN(const auto engine, Engine::Create(options, store.get()));
  ASSIGN_OR_RETURN(const CorpusShape shape, engine->ShapeOf(a.kv_format));  // calibrates
  (void)TakePeakMemory();

  const auto start = BenchClock::now();
  const double processor_start = ProcessorSeconds();
  ASSIGN_OR_RETURN(auto tokenizer, engine->NewCorpusTokenizer("", false, 0));
  const size_t documents = TakeDocuments(texts, document_bytes, tokens, *tokenizer);
  CorpusRequest request;
  request.name = "bench";
  request.mode = "segmented";
  request.kv_format = a.kv_format;
  ASSIGN_OR_RETURN(const CorpusRecord created, engine->CreateCorpus(request, std::move(tokenizer)));
  const double tokenized = SecondsSince(start);
  RETURN_IF_ERROR(engine->Prefill("bench", [](const PrefillProgress&) {}, {}));
  const double seconds = SecondsSince(start);
  const double processor = ProcessorSeconds() - processor_start;
  ASSIGN_OR_RETURN(const CorpusRecord record, store->GetCorpus("bench"));
  const auto count = static_cast<double>(record.tokens);
  const auto blocks = static_cast<double>(record.chain.size());
  return json{{"tokens_wanted", tokens},
              {"tokens", record.tokens},
              {"documents", documents},
              {"document_bytes", document_bytes},
              {"blocks", record.chain.size()},
              {"seconds", seconds},
              {"tokens_per_s", count / seconds},
              {"processor_us_per_token", processor / count * 1e6},
              {"read_and_tokenize_share", tokenized / seconds},
              {"publish_and_index_waited_share",
               std::max(0.0, seconds - tokenized - record.prefill_seconds) / seconds},
              {"peak_memory_mib", TakePeakMemory()},
              {"stored_bytes_per_token", blocks * static_cast<double>(shape.block_bytes) / count},
              {"block_slots_filled", count / (blocks * shape.block_tokens)}};
}

// Runs of 512 tokens through the model and into coded pages, nothing stored.
Result<json> BenchModel(const Arguments& a, const std::string& text) {
  ASSIGN_OR_RETURN(const auto session, ModelSession::Open(a.session));
  std::vector<TokenId> ids;
  session->tokenizer().Encode(text, /*parse_special=*/false, &ids);
  ids.resize(std::min<size_t>(ids.size(), 512));
  std::vector<double> rates, processor;
  for (int i = 0; i < (a.smoke ? 1 : 6); ++i) {
    ASSIGN_OR_RETURN(auto kv, session->NewSequence(a.kv_format));
    const auto start = BenchClock::now();
    const double processor_start = ProcessorSeconds();
    RETURN_IF_ERROR(session->Run(ids, *kv, nullptr));
    rates.push_back(static_cast<double>(ids.size()) / SecondsSince(start));
    processor.push_back((ProcessorSeconds() - processor_start) / static_cast<double>(ids.size()));
  }
  return json{{"tokens_per_s", SpreadOf(rates).median},
              {"processor_us_per_token", SpreadOf(processor).median * 1e6},
              {"run_tokens", ids.size()},
              {"backend", session->backend_name()}};
}

// Of document sizes apart: whether the longest corpus costs more a token than the shortest by no
// more than this factor. Processor time, so that a busy machine does not decide it.
Status CheckFlat(const json& results, double factor) {
  for (const json& longer : results) {
    for (const json& shorter : results) {
      if (longer["document_bytes"] != shorter["document_bytes"] ||
          longer["tokens"] <= shorter["tokens"]) {
        continue;
      }
      const double cost = longer["processor_us_per_token"].get<double>();
      const double base = shorter["processor_us_per_token"].get<double>();
      if (cost <= base * factor) continue;
      return InternalError("a token of " + longer["tokens"].dump() + " costs " +
                           std::to_string(cost) + " us, one of " + shorter["tokens"].dump() + " " +
                           std::to_string(base) + " us");
    }
  }
  return OkStatus();
}

void Print(const json& report) {
  std::printf("the model alone, %s: %.0f tokens/s, %.0f us of processor a token\n",
              report["model"]["backend"].get<std::string>().c_str(),
              report["model"]["tokens_per_s"].get<double>(),
              report["model"]["processor_us_per_token"].get<double>());
  for (const json& r : report["results"]) {
    std::printf("%8" PRIu64 " tokens, %5" PRIu64
                " documents: %6.0f tokens/s, %4.0f us a token, "
                "%.0f MiB, %.0f bytes a token, %3.0f %% of slots filled\n",
                r["tokens"].get<uint64_t>(), r["documents"].get<uint64_t>(),
                r["tokens_per_s"].get<double>(), r["processor_us_per_token"].get<double>(),
                r["peak_memory_mib"].get<double>(), r["stored_bytes_per_token"].get<double>(),
                100 * r["block_slots_filled"].get<double>());
  }
}

Status Bench(Arguments a) {
  if (a.smoke) {
    a.tokens = {2000};
    a.document_bytes = {0, 300};
    a.kv_format = "bf16";
  }
  const uint64_t tokens_max = *std::max_element(a.tokens.begin(), a.tokens.end());
  ASSIGN_OR_RETURN(const auto texts, ReadTexts(a.text_path, tokens_max * kBytesPerTokenMax));
  json report;
  ASSIGN_OR_RETURN(report["model"], BenchModel(a, texts.front()));
  report["kv_format"] = a.kv_format;
  report["host_bytes"] = a.host_bytes;
  for (const uint64_t document_bytes : a.document_bytes) {
    for (const uint64_t tokens : a.tokens) {
      ASSIGN_OR_RETURN(const json result, BenchCorpus(a, texts, document_bytes, tokens));
      report["results"].push_back(result);
      std::fprintf(stderr, "%s\n", result.dump().c_str());
    }
  }
  if (a.format == "json") {
    std::cout << report.dump() << "\n";
  } else {
    Print(report);
  }
  return a.flat_within > 0 ? CheckFlat(report["results"], a.flat_within) : OkStatus();
}

}  // namespace

void AddSegmentedCommand(CLI::App& app, Status* status) {
  auto a = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand(
      "segmented", "prefill of segmented corpora: cost a token by length and document size");
  AddSessionOptions(command, &a->session);
  command->add_option("--text", a->text_path, "a file, or a folder of text files");
  command->add_option("--kv-format", a->kv_format, "cq4");
  command->add_option("--tokens", a->tokens, "of the corpora (10000,100000,1000000)")
      ->delimiter(',');
  command
      ->add_option("--document-bytes", a->document_bytes,
                   "documents the texts are cut into; 0: the files as they are")
      ->delimiter(',');
  command->add_option("--host-bytes", a->host_bytes, "of the store's host tier (256 MiB)");
  command->add_option("--flat-within", a->flat_within,
                      "fail if a longer corpus costs more than so many times as much a token");
  AddCommonOptions(command, &a->smoke, &a->format);
  command->callback([a, status] { *status = Bench(*a); });
}

}  // namespace corpusd
