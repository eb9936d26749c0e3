// corpus-eval recall-report.
#include <algorithm>
#include <fstream>
#include <iostream>

#include "tests/eval/eval_command.h"
#include "tests/eval/long_recall_report.h"
#include "tests/support/read_file.h"

namespace corpusd {
namespace {

bool IsShown(const std::string& system, const std::vector<std::string>& beginnings) {
  return beginnings.empty() ||
         std::any_of(beginnings.begin(), beginnings.end(),
                     [&](const std::string& beginning) { return system.starts_with(beginning); });
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
  std::erase_if(recall.outcomes, [&](const LongOutcome& outcome) {
    return !IsShown(outcome.system, a.report.systems);
  });
  LongRecall pooled = Pooled(recall);
  if (a.format == "json") {
    nlohmann::json object = LongRecallJson(recall);
    object.erase("outcomes");
    object["together"] = LongRecallJson(pooled)["cells"];
    std::cout << object.dump(1) << "\n";
  } else {
    std::cout << LongRecallTable(recall) << "\n" << LongRecallTable(pooled);
  }
  if (a.plot_path.empty()) return OkStatus();
  pooled.outcomes.insert(pooled.outcomes.end(), recall.outcomes.begin(), recall.outcomes.end());
  std::ofstream out(a.plot_path, std::ios::binary);
  out << LongRecallHeatMap(pooled, a.report.title);
  out.close();
  if (!out) return IoError("cannot write " + a.plot_path);
  return OkStatus();
}

}  // namespace corpusd
