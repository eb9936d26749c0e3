#include "tests/eval/heat_map.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

namespace corpusd {
namespace {

constexpr int kCellWidth = 52, kCellHeight = 22;
constexpr int kLeft = 76, kTop = 84;  // room for the depth's labels; for the title and legend
constexpr int kPanelGap = 40, kPanelHead = 40, kPanelFoot = 34;
constexpr int kHeadingWidth = 170;  // of a panel, if its cells take less
constexpr int kLegendWidth = 180, kWidthMin = 560;

std::string Escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

template <typename... Values>
std::string Format(const char* format, Values... values) {
  const int length = std::snprintf(nullptr, 0, format, values...);
  std::string text(static_cast<size_t>(length), '\0');
  std::snprintf(text.data(), text.size() + 1, format, values...);
  return text;
}

struct Colour {
  double red, green, blue;
};

Colour ColourOf(double recall) {
  // Five steps of viridis (van der Walt and Smith 2015): lightness rises with recall, so the map
  // reads in grey and for colour-blind eyes.
  constexpr std::array<Colour, 5> kSteps = {
      {{68, 1, 84}, {59, 82, 139}, {33, 145, 140}, {94, 201, 98}, {253, 231, 37}}};
  const double at = std::clamp(recall, 0.0, 1.0) * (kSteps.size() - 1);
  const auto step = std::min<size_t>(static_cast<size_t>(at), kSteps.size() - 2);
  const double part = at - static_cast<double>(step);
  const Colour &a = kSteps[step], &b = kSteps[step + 1];
  return {a.red + part * (b.red - a.red), a.green + part * (b.green - a.green),
          a.blue + part * (b.blue - a.blue)};
}

std::string Fill(double recall) {
  const Colour c = ColourOf(recall);
  return Format("#%02x%02x%02x", static_cast<int>(std::lround(c.red)),
                static_cast<int>(std::lround(c.green)), static_cast<int>(std::lround(c.blue)));
}

std::string Text(int x, int y, const char* anchor, const char* style, std::string_view text) {
  return Format("<text x=\"%d\" y=\"%d\" text-anchor=\"%s\"%s>%s</text>\n", x, y, anchor, style,
                Escaped(text).c_str());
}

// One column and decile.
std::string CellBox(int x, int y, const HeatColumn& column, uint32_t decile) {
  const RecallCount& count = column.deciles[decile];
  if (count.asked == 0) {
    return Format("<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"#e4e4e4\"/>\n", x, y,
                  kCellWidth, kCellHeight);
  }
  std::string tip = Format("%s, depth %u-%u %%: %zu of %zu", column.name.c_str(), 10 * decile,
                           10 * decile + 10, count.hits, count.asked);
  if (count.neighbours + count.others > 0) {
    tip += Format(", %zu neighbours', %zu others' values", count.neighbours, count.others);
  }
  return Format("<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"%s\"><title>", x, y,
                kCellWidth, kCellHeight, Fill(count.recall()).c_str()) +
         Escaped(tip) + "</title></rect>\n" +
         Text(x + kCellWidth / 2, y + kCellHeight - 7, "middle",
              count.recall() > 0.6 ? "" : " fill=\"#ffffff\"",
              Format("%.0f", 100 * count.recall()));
}

int PanelWidth(const HeatPanel& panel) {
  return std::max(static_cast<int>(panel.columns.size()) * kCellWidth, kHeadingWidth);
}

std::string Panel(int left, int top, const HeatPanel& panel) {
  std::string svg;
  const int width = static_cast<int>(panel.columns.size()) * kCellWidth;
  const int height = static_cast<int>(kDeciles) * kCellHeight;
  RecallCount all;
  for (size_t i = 0; i < panel.columns.size(); ++i) {
    const HeatColumn& column = panel.columns[i];
    const int x = left + static_cast<int>(i) * kCellWidth;
    for (uint32_t d = 0; d < kDeciles; ++d) {
      svg += CellBox(x, top + static_cast<int>(d) * kCellHeight, column, d);
      all.asked += column.deciles[d].asked;
      all.hits += column.deciles[d].hits;
    }
    svg += Text(x + kCellWidth / 2, top + height + 15, "middle", "", column.label);
  }
  svg += Text(left, top - 8, "start", " font-weight=\"bold\"",
              Format("%s: %.1f %%", panel.title.c_str(), 100 * all.recall()));
  svg += Format(
      "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"none\" "
      "stroke=\"#404040\"/>\n",
      left, top, width, height);
  return svg;
}

std::string Legend(int right, int top) {
  std::string svg;
  constexpr int kSteps = 20;
  for (int i = 0; i < kSteps; ++i) {
    svg += Format("<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"10\" fill=\"%s\"/>\n",
                  right - kLegendWidth + i * kLegendWidth / kSteps, top, kLegendWidth / kSteps,
                  Fill((i + 0.5) / kSteps).c_str());
  }
  return svg + Text(right - kLegendWidth, top + 24, "start", "", "0 %") +
         Text(right, top + 24, "end", "", "100 % right");
}

}  // namespace

std::string HeatMap(std::string_view title, std::string_view subtitle,
                    const std::vector<HeatRow>& rows) {
  std::string body;
  int top = kTop;
  int right = kWidthMin;
  for (const HeatRow& row : rows) {
    int left = kLeft;
    for (const HeatPanel& panel : row) {
      body += Panel(left, top + kPanelHead, panel);
      left += PanelWidth(panel) + kPanelGap;
    }
    if (left == kLeft) continue;
    for (uint32_t d = 0; d < kDeciles; ++d) {
      body += Text(kLeft - 8, top + kPanelHead + static_cast<int>(d) * kCellHeight + 15, "end", "",
                   Format("%u-%u %%", 10 * d, 10 * d + 10));
    }
    right = std::max(right, left - kPanelGap);
    top += kPanelHead + static_cast<int>(kDeciles) * kCellHeight + kPanelFoot;
  }
  const int width = right + kPanelGap;
  return Format(
             "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
             "viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" font-size=\"12\">\n",
             width, top + 10, width, top + 10) +
         Format("<rect width=\"%d\" height=\"%d\" fill=\"#ffffff\"/>\n", width, top + 10) +
         Text(16, 24, "start", " font-size=\"15\"", title) +
         Text(16, 44, "start", " fill=\"#505050\"", subtitle) + Legend(width - 16, 62) + body +
         "</svg>\n";
}

}  // namespace corpusd
