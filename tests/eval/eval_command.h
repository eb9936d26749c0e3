// tests/eval/eval_command.h -- the commands of corpus-eval and the options they share. Each command
// prints its result to stdout and returns what went wrong. One thread.
#pragma once

#include <string>
#include <vector>

#include "engine/engine.h"
#include "tests/eval/model_session.h"
#include "tests/eval/perplexity.h"
#include "tests/eval/recall.h"

namespace corpusd {

// Of needle and recall over long corpora, which share recall's other options.
struct LongRecallArguments {
  std::string mode = "exact";  // segmented, or stored: exact, through engine and store
  bool needle = false;
  std::vector<std::string> texts;  // NAME=PATH
  std::string split = "test";      // or dev
  std::vector<std::string> retrievals = {"default"};
  std::vector<uint32_t> budgets = {0};
  uint32_t questions = 20, answer_tokens = 32;
  std::vector<std::string> baselines = {"full", "last", "block", "rag"};
  std::vector<uint32_t> rag_chunk_tokens = {128, 256, 512};
  std::vector<uint32_t> rag_chunks = {1, 4, 16};
  size_t rag_questions = 10;
  std::string work_dir;  // "": in the user's cache folder
  std::string host_bytes = "2GiB", disk_bytes = "40GiB";
  std::string device_bytes = "1GiB";  // where the model runs on a CUDA device
  bool keep = true;                   // corpora, for another run
};

// Of recall-report.
struct RecallReportArguments {
  std::vector<std::string> answers;  // files of LongRecallCommand
  std::vector<std::string> systems;  // names; empty: all
  std::string title = "Long corpora";
};

struct EvalArguments {
  ModelSessionOptions session;
  std::string text_path, ids_path, output_path, base_path;
  std::string positions = "all";
  PerplexityOptions perplexity;
  bool context_given = false;
  bool parse_special = true;
  std::string format = "table";  // or json
  RecallOptions recall;
  std::vector<std::string> recall_tasks;    // names; empty: all
  std::vector<std::string> recall_lengths;  // as ParseTokenCount; empty: as the mode has it
  bool samples_given = false;
  LongRecallArguments long_recall;
  RecallReportArguments report;
  std::string plot_path, answers_path, prompts_path;
};

Status TokenizeCommand(const EvalArguments& arguments);
Status LogitsCommand(const EvalArguments& arguments);
Status PerplexityCommand(const EvalArguments& arguments);
// Makes a base file, or compares with one.
Status KldCommand(const EvalArguments& arguments);
Status CalibrateCommand(const EvalArguments& arguments);
// What blocks in each of recall.formats cost.
Status FormatsCommand(const EvalArguments& arguments);
Status RecallCommand(const EvalArguments& arguments);
// Needle and recall in the mode segmented.
Status LongRecallCommand(const EvalArguments& arguments);
// What several runs of it measured, together.
Status RecallReportCommand(const EvalArguments& arguments);
// What the options say of an engine.
EngineOptions EngineOptionsOf(const EvalArguments& arguments);
// "4096", "32K", "1M": K is 1024. kInvalidArgument otherwise.
Result<uint64_t> ParseTokenCount(const std::string& text);

}  // namespace corpusd
