// tests/eval/eval_command.h -- the commands of corpus-eval and the options they share. Each command
// prints its result to stdout and returns what went wrong. One thread.
#pragma once

#include <string>
#include <vector>

#include "tests/eval/model_session.h"
#include "tests/eval/perplexity.h"
#include "tests/eval/recall.h"

namespace corpusd {

struct EvalArguments {
  ModelSessionOptions session;
  std::string text_path, ids_path, output_path, base_path;
  std::string positions = "all";
  PerplexityOptions perplexity;
  bool context_given = false;
  bool parse_special = true;
  std::string format = "table";  // or json
  RecallOptions recall;
  std::vector<std::string> recall_tasks;  // names; empty: all
  std::string plot_path, answers_path;
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

}  // namespace corpusd
