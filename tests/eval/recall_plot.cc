#include "tests/eval/recall_plot.h"

#include "tests/eval/heat_map.h"

namespace corpusd {

std::string RecallHeatMap(const RecallStatistics& statistics, std::string_view title) {
  std::vector<HeatRow> rows;
  for (const RecallTask task : kRecallTasks) {
    HeatRow row;
    for (const std::string& format : statistics.formats()) {
      HeatPanel panel;
      panel.title = std::string(RecallTaskName(task)) + ", " + format;
      for (const RecallCell& cell : statistics.cells()) {
        if (cell.task != task || cell.format != format) continue;
        const std::string length = std::to_string(cell.length);
        panel.columns.push_back({length, format + ", " + length + " tokens", cell.deciles});
      }
      if (!panel.columns.empty()) row.push_back(std::move(panel));
    }
    rows.push_back(std::move(row));
  }
  return HeatMap(title,
                 "percent right, by depth of the needle (down) and tokens of the prompt (across)",
                 rows);
}

}  // namespace corpusd
