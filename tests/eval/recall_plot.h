// tests/eval/recall_plot.h -- recall by depth and length as a heat map in SVG: a row of panels a
// task, a panel a KV format, a column of cells a length, ten cells down its depth. Text only.
#pragma once

#include <string>
#include <string_view>

#include "tests/eval/recall_statistics.h"

namespace corpusd {

// title: what was measured; it may hold any UTF-8. The SVG stands alone: no fonts, scripts, links.
std::string RecallHeatMap(const RecallStatistics& statistics, std::string_view title);

}  // namespace corpusd
