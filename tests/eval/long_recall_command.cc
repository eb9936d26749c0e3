// corpus-eval needle and recall over long corpora: --mode segmented.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>

#include "engine/backend/device_backend.h"
#include "store/base/units.h"
#include "store/cuda/cuda_device_memory.h"
#include "tests/eval/eval_command.h"
#include "tests/eval/long_recall_report.h"
#include "tests/eval/micro_rag.h"

namespace corpusd {
namespace {

constexpr uint64_t kLastTokens = 7500;

FlopModel FlopOf(const ModelConfig& config) {
  const double q = double{1} * config.q_heads * config.head_dim;
  const double kv = double{1} * config.kv_heads * config.head_dim;
  const double hidden = config.hidden;
  FlopModel flop;
  flop.token = 2.0 * config.layers * hidden * (2 * q + 2 * kv + 3.0 * config.feed_forward);
  flop.attention = 4.0 * config.layers * q;
  flop.head = 2.0 * hidden * config.vocabulary;
  return flop;
}

TokenCoder CoderOf(const Tokenizer& tokenizer) {
  return {[&tokenizer](std::string_view text) {
            std::vector<TokenId> ids;
            tokenizer.Encode(text, false, &ids);
            return ids;
          },
          [&tokenizer](TokenId id) { return tokenizer.piece(id); }};
}

Result<LongRecallOptions> OptionsOf(const EvalArguments& a, const TokenCoder& coder) {
  const LongRecallArguments& given = a.long_recall;
  LongRecallOptions options;
  if (!given.needle && !a.recall_tasks.empty()) options.tasks.clear();
  if (given.needle) options.tasks = {LongTask::kNeedle};
  for (const std::string& name : a.recall_tasks) {
    ASSIGN_OR_RETURN(options.tasks.emplace_back(), ParseLongTask(name));
  }
  if (!a.recall_lengths.empty()) options.lengths.clear();
  for (const std::string& text : a.recall_lengths) {
    ASSIGN_OR_RETURN(options.lengths.emplace_back(), ParseTokenCount(text));
  }
  for (const std::string& text : given.texts) {
    ASSIGN_OR_RETURN(options.texts.emplace_back(), ReadLongTexts(text, given.split == "test"));
  }
  options.questions = given.questions;
  options.samples = a.samples_given ? a.recall.samples : 1;
  options.seed = a.recall.seed;
  options.count_tokens = [&coder](std::string_view text) { return coder.encode(text).size(); };
  return options;
}

// Everything that a run needs, in the order in which it may go.
struct Run {
  std::unique_ptr<ModelSession> session;
  std::unique_ptr<PromptAnswerer> answerer;
  std::unique_ptr<BlockStore> store;
  std::unique_ptr<Engine> engine;
  std::unique_ptr<EngineBench> bench;
  std::vector<std::unique_ptr<ChunkedCorpus>> chunks;
  std::vector<std::unique_ptr<LongSystem>> systems;
};

void ShowPrefill(const std::string& corpus, const PrefillProgress& progress) {
  const bool done = progress.done_tokens == progress.total_tokens;
  const bool live = isatty(STDERR_FILENO) != 0;
  if (!live && !done) return;
  std::fprintf(stderr, "%s%s: %llu of %llu tokens%s", live ? "\r" : "", corpus.c_str(),
               static_cast<unsigned long long>(progress.done_tokens),
               static_cast<unsigned long long>(progress.total_tokens), done ? "\n" : "");
}

Status OpenEngine(const EvalArguments& a, Run* run) {
  const LongRecallArguments& given = a.long_recall;
  BlockStoreOptions store;
  store.data_dir = given.work_dir.empty() ? UserCacheFolder() + "/eval" : given.work_dir;
  std::error_code error;
  std::filesystem::create_directories(store.data_dir, error);
  ASSIGN_OR_RETURN(store.host_bytes, ParseBytes(given.host_bytes));
  ASSIGN_OR_RETURN(store.disk_bytes, ParseBytes(given.disk_bytes));
  store.evict_disk = true;  // kept corpora are a cache
  ASSIGN_OR_RETURN(const std::optional<int> cuda, ResolveDevice(a.session.device));
  if (cuda.has_value()) {
    ASSIGN_OR_RETURN(const uint64_t bytes, ParseBytes(given.device_bytes));
    ASSIGN_OR_RETURN(store.device, MakeCudaDeviceMemory(*cuda, bytes, &store.device_bytes));
  }
  ASSIGN_OR_RETURN(run->store, BlockStore::Open(store));
  ASSIGN_OR_RETURN(run->engine, Engine::Create(EngineOptionsOf(a), run->store.get()));
  ASSIGN_OR_RETURN(const CorpusShape shape, run->engine->ShapeOf(""));
  run->bench = std::make_unique<EngineBench>(
      EngineBench{*run->engine, *run->store, CoderOf(run->session->tokenizer()),
                  FlopOf(run->session->model().config()), shape.block_tokens, given.answer_tokens,
                  ShowPrefill, given.keep});
  return OkStatus();
}

void AddSystems(const EvalArguments& a, Run* run) {
  const LongRecallArguments& given = a.long_recall;
  const auto formats =
      a.recall.formats.empty() ? std::vector<std::string>{"cq4"} : a.recall.formats;
  const auto wanted = [&](std::string_view name) {
    return std::find(given.baselines.begin(), given.baselines.end(), name) != given.baselines.end();
  };
  for (const std::string& format : formats) {
    for (const std::string& retrieval : given.retrievals) {
      if (retrieval == "none") continue;
      for (const uint32_t budget : given.budgets) {
        run->systems.push_back(MakeSegmentedSystem(
            *run->bench, {format, retrieval == "default" ? "" : retrieval, budget}));
      }
    }
  }
  for (const std::string& format : formats) {
    if (wanted("full")) run->systems.push_back(MakeFullSystem(*run->bench, format));
    if (wanted("last")) run->systems.push_back(MakeLastSystem(*run->bench, format, kLastTokens));
  }
  const FlopModel& flop = run->bench->flop;
  if (wanted("block")) {
    run->systems.push_back(
        MakeBlockAloneSystem(*run->answerer, run->bench->coder, flop, given.answer_tokens));
  }
  if (!wanted("rag")) return;
  // Room for the question, the answer and the template.
  const uint64_t room = run->session->model().config().context_tokens - 512;
  for (const uint32_t chunk_tokens : given.rag_chunk_tokens) {
    run->chunks.push_back(std::make_unique<ChunkedCorpus>(run->bench->coder, chunk_tokens));
    for (const uint32_t chunks : given.rag_chunks) {
      if (uint64_t{chunk_tokens} * chunks > room) continue;
      run->systems.push_back(MakeRagSystem(*run->answerer, *run->chunks.back(), flop,
                                           {chunks, given.answer_tokens, given.rag_questions}));
    }
  }
}

// In one step, so that a run that is killed leaves a whole file.
Status WriteText(const std::string& path, const std::string& text) {
  if (path.empty()) return OkStatus();
  const std::string made = path + ".new";
  std::ofstream out(made, std::ios::binary);
  out << text;
  out.close();
  std::error_code error;
  if (out) std::filesystem::rename(made, path, error);
  if (!out || error) return IoError("cannot write " + path);
  return OkStatus();
}

}  // namespace

EngineOptions EngineOptionsOf(const EvalArguments& a) {
  EngineOptions engine;
  engine.model_path = a.session.model_path;
  engine.weights = a.session.weights;
  engine.device = a.session.device;
  engine.isa = a.session.isa;
  engine.threads = a.session.threads;
  engine.cache_dir = a.session.calibration_dir;
  engine.calibration_dir = a.session.calibration_dir;
  engine.calibration_text = a.session.calibration_text;
  return engine;
}

Result<uint64_t> ParseTokenCount(const std::string& text) {
  std::string digits = text;
  uint64_t factor = 1;
  if (!digits.empty() && (digits.back() == 'K' || digits.back() == 'M')) {
    factor = digits.back() == 'K' ? 1024 : 1024 * 1024;
    digits.pop_back();
  }
  const bool number = !digits.empty() && digits.size() <= 9 &&
                      digits.find_first_not_of("0123456789") == std::string::npos;
  if (!number) return InvalidArgumentError("'" + text + "' is no length such as 4096, 32K or 1M");
  return factor * std::stoull(digits);
}

Status LongRecallCommand(const EvalArguments& a) {
  Run run;
  ASSIGN_OR_RETURN(run.session, ModelSession::Open(a.session));
  ASSIGN_OR_RETURN(run.answerer, MakePromptAnswerer(*run.session));
  const TokenCoder coder = CoderOf(run.session->tokenizer());
  ASSIGN_OR_RETURN(const LongRecallOptions options, OptionsOf(a, coder));
  RETURN_IF_ERROR(OpenEngine(a, &run));
  AddSystems(a, &run);
  const std::string model = std::filesystem::path(a.session.model_path).filename();
  const auto text_of = [&](const LongRecall& recall) {
    nlohmann::json object = LongRecallJson(recall);
    object["model"] = model;
    object["backend"] = run.session->backend_name();
    object["seed"] = options.seed;
    object["split"] = a.long_recall.split;
    // An answer may end inside of a character.
    return object.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  };
  ASSIGN_OR_RETURN(
      const LongRecall recall,
      MeasureLongRecall(
          options, run.systems, [&](const LongRecall& so_far, const std::string& step) {
            std::fprintf(stderr, "%s: %zu answers so far\n", step.c_str(), so_far.outcomes.size());
            // A run of hours that is cut off still leaves what it measured.
            const Status status = WriteText(a.answers_path, text_of(so_far));
            if (!status.ok()) std::fprintf(stderr, "%s\n", status.message().c_str());
          }));
  RETURN_IF_ERROR(WriteText(a.plot_path, LongRecallHeatMap(recall, "Long corpora, " + model)));
  RETURN_IF_ERROR(WriteText(a.answers_path, text_of(recall)));
  std::cout << (a.format == "json" ? text_of(recall) : LongRecallTable(recall));
  return OkStatus();
}

}  // namespace corpusd
