// corpus-eval recall-report.
#include <algorithm>
#include <fstream>
#include <iostream>

#include "tests/eval/eval_command.h"
#include "tests/eval/long_recall_report.h"
#include "tests/support/read_file.h"

namespace corpusd {
namespace {

// "multikey-prose" is of the kind "multikey": a heat map of every text apart would be a wall.
LongRecall ByKind(const LongRecall& recall) {
  LongRecall kinds = Pooled(recall);
  for (LongOutcome outcome : recall.outcomes) {
    outcome.task.resize(std::min(outcome.task.size(), outcome.task.find('-')));
    kinds.outcomes.push_back(std::move(outcome));
  }
  return kinds;
}

Status AddFile(const std::string& path, LongRecall* recall) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  const auto object = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  const Status added = AddLongRecall(object, recall);
  return added.ok() ? added : InvalidArgumentError(path + ": " + added.message());
}

}  // namespace

Status RecallReportCommand(const EvalArguments& a) {
  LongRecall recall;
  for (const std::string& path : a.report.answers) RETURN_IF_ERROR(AddFile(path, &recall));
  const auto& shown = a.report.systems;
  std::erase_if(recall.outcomes, [&](const LongOutcome& outcome) {
    return !shown.empty() && std::find(shown.begin(), shown.end(), outcome.system) == shown.end();
  });
  std::stable_sort(recall.outcomes.begin(), recall.outcomes.end(),
                   [](const LongOutcome& x, const LongOutcome& y) { return x.length < y.length; });
  const LongRecall pooled = Pooled(recall);
  if (a.format == "json") {
    nlohmann::json object = LongRecallJson(recall);
    object.erase("outcomes");
    object["together"] = LongRecallJson(pooled)["cells"];
    std::cout << object.dump(1) << "\n";
  } else {
    std::cout << LongRecallTable(recall) << "\n" << LongRecallTable(pooled);
  }
  if (a.plot_path.empty()) return OkStatus();
  std::ofstream out(a.plot_path, std::ios::binary);
  out << LongRecallHeatMap(ByKind(recall), a.report.title);
  out.close();
  if (!out) return IoError("cannot write " + a.plot_path);
  return OkStatus();
}

}  // namespace corpusd
