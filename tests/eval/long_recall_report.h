// tests/eval/long_recall_report.h -- what long_recall.h measured, as a table, as JSON and as heat
// maps. Text only; one thread.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "tests/eval/long_recall.h"

namespace corpusd {

std::string LongRecallTable(const LongRecall& recall);
// {"cells": [...], "outcomes": [...], "prefills": [...], "skipped": [...]}
nlohmann::json LongRecallJson(const LongRecall& recall);
// What LongRecallJson wrote, added to `recall`: outcomes, prefills and what was skipped. Of a
// question's text, place and value only the value and the depth. kInvalidArgument: it is something
// else.
Status AddLongRecall(const nlohmann::json& object, LongRecall* recall);
// A row a task; of every system its right answers, of those that rank blocks of the engine also the
// answer's block among the best four. Of Micro-RAG only the best of the task.
std::string LongRecallHeatMap(const LongRecall& recall, std::string_view title);

}  // namespace corpusd
