// tests/eval/heat_map.h -- fractions by depth as heat maps in SVG: rows of panels, a column of
// cells in a panel for each length, ten cells down its depth. Text only.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "tests/eval/recall_statistics.h"

namespace corpusd {

struct HeatColumn {
  std::string label, name;  // beneath it; in the tip of each cell
  std::array<RecallCount, kDeciles> deciles;
};
struct HeatPanel {
  std::string title;  // the fraction over all columns is put behind it
  std::vector<HeatColumn> columns;
};
using HeatRow = std::vector<HeatPanel>;

// Texts may hold any UTF-8. The SVG stands alone: no fonts, scripts, links.
std::string HeatMap(std::string_view title, std::string_view subtitle,
                    const std::vector<HeatRow>& rows);

}  // namespace corpusd
