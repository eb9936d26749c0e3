#include "tests/eval/long_recall_report.h"

#include <algorithm>
#include <cstdio>

#include "tests/eval/heat_map.h"

namespace corpusd {
namespace {

using nlohmann::json;

json ToJson(const RecallCount& count) {
  const Interval interval = WilsonInterval(count.hits, count.asked);
  return {{"asked", count.asked},
          {"hits", count.hits},
          {"share", count.recall()},
          {"low", interval.low},
          {"high", interval.high}};
}

template <size_t n>
json ToJson(const std::array<RecallCount, n>& counts) {
  json list = json::array();
  for (const RecallCount& count : counts)
    list.push_back({{"asked", count.asked}, {"hits", count.hits}});
  return list;
}

json AtRanks(const std::array<RecallCount, kRanks.size()>& counts) {
  json object = json::object();
  for (size_t i = 0; i < kRanks.size(); ++i)
    object["at_" + std::to_string(kRanks[i])] = ToJson(counts[i]);
  return object;
}

json ToJson(const LongCell& cell, bool best_rag) {
  json object = {{"task", cell.task},
                 {"length", cell.length},
                 {"system", cell.system},
                 {"right", ToJson(cell.right)},
                 {"right_deciles", ToJson(cell.right_deciles)},
                 {"first_token_ms", cell.first_token_ms},
                 {"select_ms", cell.select_ms},
                 {"total_ms", cell.total_ms},
                 {"prefill_flop", cell.prefill_flop},
                 {"computed_tokens", cell.computed_tokens},
                 {"attended_tokens", cell.attended_tokens},
                 {"read_bytes", cell.read_bytes}};
  if (best_rag) object["best_rag"] = true;
  if (cell.cited.asked > 0) object["cited"] = ToJson(cell.cited);
  if (cell.blocks[0].asked > 0) {
    object["blocks"] = AtRanks(cell.blocks);
    object["lines"] = AtRanks(cell.lines);
    object["block_deciles_at_4"] = ToJson(cell.block_deciles);
  }
  return object;
}

json ToJson(const LongOutcome& outcome) {
  const LongAnswer& answer = outcome.answer;
  json object = {{"task", outcome.task},
                 {"length", outcome.length},
                 {"system", outcome.system},
                 {"decile", outcome.question.decile},
                 {"question", outcome.question.text},
                 {"value", outcome.question.answer},
                 {"answer", answer.text},
                 {"right", outcome.right},
                 {"first_token_ms", answer.first_token_ms},
                 {"select_ms", answer.select_ms},
                 {"total_ms", answer.total_ms},
                 {"prefill_flop", answer.prefill_flop},
                 {"attended_tokens", answer.attended_tokens},
                 {"computed_tokens", answer.computed_tokens},
                 {"read_bytes", answer.read_bytes},
                 {"disk_bytes", answer.disk_bytes}};
  if (answer.ranked) {
    object["rank"] = answer.rank ? json(*answer.rank) : json(nullptr);
    object["line_rank"] = answer.line_rank ? json(*answer.line_rank) : json(nullptr);
  }
  if (answer.cited) object["cited"] = *answer.cited;
  return object;
}

std::optional<size_t> RankOf(const json& object, const char* key) {
  if (object.at(key).is_null()) return std::nullopt;
  return object.at(key).get<size_t>();
}

LongOutcome OutcomeOf(const json& object) {
  LongOutcome outcome;
  outcome.task = object.at("task");
  outcome.length = object.at("length");
  outcome.system = object.at("system");
  outcome.right = object.at("right");
  LongQuestion& question = outcome.question;
  question.text = object.at("question");
  question.answer = object.at("value");
  question.decile = std::min(object.at("decile").get<uint32_t>(), kDeciles - 1);
  LongAnswer& answer = outcome.answer;
  answer.text = object.at("answer");
  answer.first_token_ms = object.at("first_token_ms");
  answer.select_ms = object.at("select_ms");
  answer.total_ms = object.at("total_ms");
  answer.prefill_flop = object.at("prefill_flop");
  answer.attended_tokens = object.at("attended_tokens");
  answer.computed_tokens = object.at("computed_tokens");
  answer.read_bytes = object.at("read_bytes");
  answer.disk_bytes = object.at("disk_bytes");
  answer.ranked = object.contains("rank");
  if (answer.ranked) {
    answer.rank = RankOf(object, "rank");
    answer.line_rank = RankOf(object, "line_rank");
  }
  if (object.contains("cited")) answer.cited = object.at("cited").get<bool>();
  return outcome;
}

std::string Percent(const RecallCount& count) {
  if (count.asked == 0) return "   -";
  char text[16];
  std::snprintf(text, sizeof(text), "%4.0f", 100 * count.recall());
  return text;
}

std::string Row(const LongCell& cell, bool best_rag) {
  char text[320];
  std::snprintf(
      text, sizeof(text),
      "%-16s %8llu %-22s%c %5zu %s  %s  %s%s%s%s %9.1f %8.0f %8.0f %8.1f %9.2f\n",
      cell.task.c_str(), static_cast<unsigned long long>(cell.length), cell.system.c_str(),
      best_rag ? '*' : ' ', cell.right.asked, Percent(cell.right).c_str(),
      Percent(cell.cited).c_str(), Percent(cell.blocks[0]).c_str(), Percent(cell.blocks[1]).c_str(),
      Percent(cell.blocks[2]).c_str(), Percent(cell.blocks[3]).c_str(), cell.first_token_ms,
      cell.computed_tokens, cell.attended_tokens, cell.read_bytes / 1e6, cell.prefill_flop / 1e9);
  return text;
}

// The columns of one system's panel, by length.
HeatPanel PanelOf(const std::vector<LongCell>& cells, const std::string& task,
                  const std::string& system, bool blocks) {
  HeatPanel panel;
  panel.title = task + ", " + system + (blocks ? ", block @4" : ", right");
  for (const LongCell& cell : cells) {
    if (cell.task != task || cell.system != system) continue;
    if (blocks && cell.blocks[0].asked == 0) continue;
    const std::string label = cell.length % 1024 == 0 ? std::to_string(cell.length / 1024) + "K"
                                                      : std::to_string(cell.length);
    panel.columns.push_back({label, system + ", " + label + " tokens",
                             blocks ? cell.block_deciles : cell.right_deciles});
  }
  return panel;
}

void AddNew(const std::string& text, std::vector<std::string>* list) {
  if (std::find(list->begin(), list->end(), text) == list->end()) list->push_back(text);
}

}  // namespace

std::string LongRecallTable(const LongRecall& recall) {
  char heading[320];
  std::snprintf(heading, sizeof(heading), "%-16s %8s %-23s %5s %4s %5s   %s %9s %8s %8s %8s %9s\n",
                "task", "length", "system (*: best rag)", "asked", "right", "cited",
                "block @1 @4 @16 @48", "first ms", "computed", "attended", "read MB", "GFLOP");
  std::string text = heading;
  const std::vector<LongCell> cells = LongCells(recall);
  for (const LongCell& cell : cells) {
    text += Row(cell, cell.system == BestRag(cells, cell.task, cell.length));
  }
  for (const std::string& skipped : recall.skipped) text += "skipped: " + skipped + "\n";
  return text;
}

json LongRecallJson(const LongRecall& recall) {
  json object = {{"cells", json::array()},
                 {"outcomes", json::array()},
                 {"prefills", json::array()},
                 {"skipped", recall.skipped}};
  const std::vector<LongCell> cells = LongCells(recall);
  for (const LongCell& cell : cells) {
    object["cells"].push_back(ToJson(cell, cell.system == BestRag(cells, cell.task, cell.length)));
  }
  for (const LongOutcome& outcome : recall.outcomes) object["outcomes"].push_back(ToJson(outcome));
  for (const LongPrefill& prefill : recall.prefills) {
    object["prefills"].push_back({{"task", prefill.task},
                                  {"system", prefill.system},
                                  {"length", prefill.length},
                                  {"tokens", prefill.tokens},
                                  {"seconds", prefill.seconds}});
  }
  return object;
}

Status AddLongRecall(const json& object, LongRecall* recall) {
  try {  // the JSON library throws where a key or a type is another
    for (const json& outcome : object.at("outcomes")) {
      recall->outcomes.push_back(OutcomeOf(outcome));
    }
    for (const json& prefill : object.at("prefills")) {
      recall->prefills.push_back({prefill.at("task"), prefill.at("system"), prefill.at("length"),
                                  prefill.at("tokens"), prefill.at("seconds")});
    }
    for (const json& skipped : object.at("skipped")) recall->skipped.push_back(skipped);
  } catch (const json::exception& error) {
    return InvalidArgumentError(std::string("not the answers of a long recall: ") + error.what());
  }
  return OkStatus();
}

std::string LongRecallHeatMap(const LongRecall& recall, std::string_view title) {
  const std::vector<LongCell> cells = LongCells(recall);
  std::vector<std::string> tasks;
  for (const LongCell& cell : cells) AddNew(cell.task, &tasks);
  std::vector<HeatRow> rows;
  for (const std::string& task : tasks) {
    const std::string rag = BestRag(cells, task, 0);
    std::vector<std::string> systems;
    for (const LongCell& cell : cells) {
      const bool other_rag = cell.system.starts_with("rag ") && cell.system != rag;
      if (cell.task == task && !other_rag) AddNew(cell.system, &systems);
    }
    HeatRow row;
    for (const std::string& system : systems) {
      if (system != rag) {
        HeatPanel blocks = PanelOf(cells, task, system, true);
        if (!blocks.columns.empty()) row.push_back(std::move(blocks));
      }
      row.push_back(PanelOf(cells, task, system, false));
    }
    rows.push_back(std::move(row));
  }
  return HeatMap(title, "percent, by depth of the fact (down) and tokens of the corpus (across)",
                 rows);
}

}  // namespace corpusd
