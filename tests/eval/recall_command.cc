// corpus-eval recall and corpus-eval formats: what is printed, as a table or as JSON.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "engine/backend/device_backend.h"
#include "store/base/units.h"
#include "store/cuda/cuda_device_memory.h"
#include "tests/eval/eval_command.h"
#include "tests/eval/recall_plot.h"
#include "tests/eval/stored_answerer.h"
#include "tests/support/read_file.h"

namespace corpusd {
namespace {

using nlohmann::json;

json ToJson(const RecallCount& count) {
  return {{"asked", count.asked},
          {"hits", count.hits},
          {"neighbours", count.neighbours},
          {"others", count.others}};
}

json ToJson(const RecallCell& cell) {
  const Interval interval = WilsonInterval(cell.total.hits, cell.total.asked);
  json object = ToJson(cell.total);
  object.update({{"task", RecallTaskName(cell.task)},
                 {"format", cell.format},
                 {"recall", cell.total.recall()},
                 {"recall_low", interval.low},
                 {"recall_high", interval.high},
                 {"lost", cell.lost},
                 {"gained", cell.gained},
                 {"deciles", json::array()}});
  if (cell.length > 0) object["length"] = cell.length;
  for (const RecallCount& decile : cell.deciles) object["deciles"].push_back(ToJson(decile));
  return object;
}

json ToJson(const std::vector<RecallCell>& cells) {
  json list = json::array();
  for (const RecallCell& cell : cells) list.push_back(ToJson(cell));
  return list;
}

void PrintHeading(const RecallStatistics& statistics) {
  std::printf("%-10s %7s %-8s %6s %7s %15s %6s %6s %6s %6s  %s\n", "task", "length", "format",
              "asked", "right %", "95 % interval", "neigh.", "other", "lost", "gained",
              "right % by depth decile");
  std::printf("%-10s %7s %-8s (neigh., other: another needle's value; lost, gained: beside %s)\n",
              "", "", "", statistics.formats().front().c_str());
}

void Print(const RecallCell& cell) {
  const Interval interval = WilsonInterval(cell.total.hits, cell.total.asked);
  std::string depths;
  for (const RecallCount& decile : cell.deciles) {
    char text[8] = "   -";
    if (decile.asked > 0) std::snprintf(text, sizeof(text), "%4.0f", 100 * decile.recall());
    depths += text;
  }
  std::printf("%-10s %7s %-8s %6zu %7.1f  %5.1f .. %5.1f %6zu %6zu %6zu %6zu  %s\n",
              std::string(RecallTaskName(cell.task)).c_str(),
              cell.length > 0 ? std::to_string(cell.length).c_str() : "all", cell.format.c_str(),
              cell.total.asked, 100 * cell.total.recall(), 100 * interval.low, 100 * interval.high,
              cell.total.neighbours, cell.total.others, cell.lost, cell.gained, depths.c_str());
}

void PrintProgress(const RecallCase& recall, const RecallStatistics& statistics,
                   const RecallOptions& options) {
  std::fprintf(stderr, "%s %u, text %u of %u:", std::string(RecallTaskName(recall.task)).c_str(),
               recall.length, recall.sample + 1, options.samples);
  for (const RecallCell& cell : statistics.cells()) {
    if (cell.task != recall.task || cell.length != recall.length) continue;
    std::fprintf(stderr, " %s %zu/%zu", cell.format.c_str(), cell.total.hits, cell.total.asked);
  }
  std::fprintf(stderr, "\n");
}

void WriteAnswers(const RecallCase& recall, const RecallStatistics& statistics,
                  const std::vector<std::vector<std::string>>& answers, std::ostream& out) {
  for (size_t i = 0; i < recall.questions.size(); ++i) {
    const RecallQuestion& question = recall.questions[i];
    json line = {{"task", RecallTaskName(recall.task)},
                 {"length", recall.length},
                 {"sample", recall.sample},
                 {"decile", question.decile},
                 {"question", question.text},
                 {"answer_start", question.answer_start},
                 {"value", recall.values[question.needle]},
                 {"answers", json::object()}};
    for (size_t f = 0; f < answers.size(); ++f) {
      line["answers"][statistics.formats()[f]] = answers[f][i];
    }
    // An answer may end inside of a character.
    out << line.dump(-1, ' ', false, json::error_handler_t::replace) << "\n";
  }
}

Status WriteFile(const std::string& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary);
  out << text;
  out.close();
  if (!out) return IoError("cannot write " + path);
  return OkStatus();
}

Result<RecallOptions> OptionsOf(const EvalArguments& a) {
  RecallOptions options = a.recall;
  if (options.formats.empty()) options.formats = RecallOptions().formats;
  const bool stored = a.long_recall.mode == "stored";
  if (stored) options.tasks = {RecallTask::kPairs, RecallTask::kRepeats};
  if (!a.recall_tasks.empty()) options.tasks.clear();
  if (a.long_recall.needle) {
    options.tasks = {stored ? RecallTask::kPairs : RecallTask::kPasskey};
  }
  for (const std::string& text : a.recall_lengths) {
    ASSIGN_OR_RETURN(const uint64_t length, ParseTokenCount(text));
    options.lengths.push_back(static_cast<uint32_t>(std::min<uint64_t>(length, UINT32_MAX)));
  }
  for (const std::string& name : a.recall_tasks) {
    ASSIGN_OR_RETURN(options.tasks.emplace_back(), ParseRecallTask(name));
  }
  if (!a.text_path.empty()) {
    ASSIGN_OR_RETURN(options.filler, ReadFile(a.text_path));
  }
  return options;
}

json ToJson(const StoredCosts& costs) {
  return {{"prefill_seconds", costs.prefill_seconds},
          {"prefilled_tokens", costs.prefilled_tokens},
          {"question_seconds", costs.question_seconds},
          {"questions", costs.questions}};
}

// What another program needs to be asked the same.
json ToJson(const RecallCase& recall, const RecallPrompts& prompts) {
  json questions = json::array();
  for (size_t i = 0; i < prompts.questions.size(); ++i) {
    questions.push_back({{"ids", prompts.questions[i].ids},
                         {"answer_tokens", prompts.questions[i].answer_tokens},
                         {"decile", recall.questions[i].decile},
                         {"value", recall.values[recall.questions[i].needle]}});
  }
  return {{"task", RecallTaskName(recall.task)},
          {"length", recall.length},
          {"sample", recall.sample},
          {"haystack", prompts.haystack},
          {"questions", std::move(questions)}};
}

// Whoever answers, and what it stands on.
struct Answering {
  std::unique_ptr<ModelSession> session;
  std::unique_ptr<RecallAnswerer> answerer;
  const StoredAnswerer* stored = nullptr;  // the same, if it has a store
  std::string backend;
};

// prompts: gets those of the first format, a case a line; or null.
Result<Answering> OpenAnswering(const EvalArguments& a, const std::string& first_format,
                                std::ofstream* prompts) {
  Answering answering;
  if (a.long_recall.mode != "stored") {
    ASSIGN_OR_RETURN(answering.session, ModelSession::Open(a.session));
    const RecallPromptSink sink = [=](const RecallCase& recall, const std::string& format,
                                      const RecallPrompts& given) {
      if (prompts != nullptr && format == first_format) *prompts << ToJson(recall, given) << "\n";
    };
    ASSIGN_OR_RETURN(answering.answerer, MakeModelAnswerer(*answering.session, sink));
    answering.backend = answering.session->backend_name();
    return answering;
  }
  StoredAnswererOptions options;
  options.engine = EngineOptionsOf(a);
  options.work_dir =
      a.long_recall.work_dir.empty() ? UserCacheFolder() + "/eval" : a.long_recall.work_dir;
  ASSIGN_OR_RETURN(options.host_bytes, ParseBytes(a.long_recall.host_bytes));
  ASSIGN_OR_RETURN(options.disk_bytes, ParseBytes(a.long_recall.disk_bytes));
  ASSIGN_OR_RETURN(const std::optional<int> cuda, ResolveDevice(a.session.device));
  if (cuda.has_value()) {
    ASSIGN_OR_RETURN(const uint64_t bytes, ParseBytes(a.long_recall.device_bytes));
    ASSIGN_OR_RETURN(options.device, MakeCudaDeviceMemory(*cuda, bytes, &options.device_bytes));
  }
  ASSIGN_OR_RETURN(auto stored, MakeStoredAnswerer(options));
  answering.backend = stored->backend();
  answering.stored = stored.get();
  answering.answerer = std::move(stored);
  return answering;
}

}  // namespace

Status RecallCommand(const EvalArguments& a) {
  if (a.long_recall.mode == "segmented") return LongRecallCommand(a);
  ASSIGN_OR_RETURN(const RecallOptions options, OptionsOf(a));
  std::ofstream prompts;
  if (!a.prompts_path.empty()) prompts.open(a.prompts_path, std::ios::binary);
  ASSIGN_OR_RETURN(
      const Answering answering,
      OpenAnswering(a, options.formats.front(), a.prompts_path.empty() ? nullptr : &prompts));
  RecallAnswerer* const answerer = answering.answerer.get();
  std::ofstream answers_file;
  if (!a.answers_path.empty()) {
    answers_file.open(a.answers_path, std::ios::binary);
    if (!answers_file) return IoError("cannot write " + a.answers_path);
  }
  ASSIGN_OR_RETURN(const RecallStatistics statistics,
                   MeasureRecall(*answerer, options,
                                 [&](const RecallCase& recall, const RecallStatistics& so_far,
                                     const std::vector<std::vector<std::string>>& answers) {
                                   PrintProgress(recall, so_far, options);
                                   if (!answers_file.is_open()) return;
                                   WriteAnswers(recall, so_far, answers, answers_file);
                                 }));
  if (prompts.is_open()) prompts.close();
  if (!prompts) return IoError("cannot write " + a.prompts_path);
  if (answers_file.is_open()) {
    answers_file.close();
    if (!answers_file) return IoError("cannot write " + a.answers_path);
  }
  if (!a.plot_path.empty()) {
    const std::string name = std::filesystem::path(a.session.model_path).filename();
    RETURN_IF_ERROR(WriteFile(a.plot_path, RecallHeatMap(statistics, "Recall of " + name)));
  }
  if (a.format == "json") {
    json object = {{"backend", answering.backend},
                   {"mode", a.long_recall.mode},
                   {"seed", options.seed},
                   {"samples", options.samples},
                   {"formats", statistics.formats()},
                   {"cells", ToJson(statistics.cells())},
                   {"totals", ToJson(statistics.Totals())}};
    if (answering.stored != nullptr) object["costs"] = ToJson(answering.stored->costs());
    std::cout << object.dump() << "\n";
    return OkStatus();
  }
  PrintHeading(statistics);
  for (const RecallCell& cell : statistics.cells()) Print(cell);
  for (const RecallCell& cell : statistics.Totals()) Print(cell);
  return OkStatus();
}

Status FormatsCommand(const EvalArguments& a) {
  ASSIGN_OR_RETURN(const auto session, ModelSession::Open(a.session));
  json list = json::array();
  const auto names = a.recall.formats.empty() ? RecallOptions().formats : a.recall.formats;
  for (const std::string& name : names) {
    ASSIGN_OR_RETURN(const KvFormat format, session->model().Format(name));
    const double elements =
        2.0 * format.layers * format.kv_heads * format.head_dim * format.block_tokens;
    const double bits = 8.0 * static_cast<double>(format.BlockBytes()) / elements;
    list.push_back({{"name", name},
                    {"layout", format.Canonical()},
                    {"block_bytes", format.BlockBytes()},
                    {"bits_per_element", bits}});
    if (a.format != "json") {
      std::printf("%-8s %10llu bytes a block, %8.4f bits an element, %s\n", name.c_str(),
                  static_cast<unsigned long long>(format.BlockBytes()), bits,
                  format.Canonical().c_str());
    }
  }
  if (a.format == "json") std::cout << json{{"formats", list}}.dump() << "\n";
  return OkStatus();
}

}  // namespace corpusd
