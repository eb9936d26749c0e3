#include "client/ctl/table_printer.h"

#include <algorithm>
#include <cstddef>

#include "client/ctl/text.h"

namespace corpusd::ctl {
namespace {

constexpr std::string_view kBold = "\x1b[1m";
constexpr std::string_view kReset = "\x1b[0m";
constexpr std::string_view kGap = "  ";

// By the first word, so that "prefilling 43%" is one too.
std::string_view ColorOfState(std::string_view cell) {
  const std::string_view word = cell.substr(0, cell.find(' '));
  if (word == "ready" || word == "done" || word == "ok") return "\x1b[32m";
  if (word == "failed" || word == "error") return "\x1b[31m";
  if (word == "cancelled" || word == "evicted" || word == "warn") return "\x1b[33m";
  if (word == "prefilling" || word == "running" || word == "queued") return "\x1b[36m";
  return "";
}

std::string Paint(const std::string& text, std::string_view color) {
  if (color.empty()) return text;
  return std::string(color) + text + std::string(kReset);
}

// The line without the padding of its last cell, which would only be trailing spaces.
void PrintLine(std::ostream& out, const std::vector<Column>& columns,
               const std::vector<size_t>& widths, const std::vector<std::string>& cells,
               const std::vector<std::string_view>& colors) {
  std::string line;
  for (size_t i = 0; i < columns.size(); ++i) {
    if (i > 0) line += kGap;
    const std::string padding(widths[i] - DisplayWidth(cells[i]), ' ');
    const bool last = i + 1 == columns.size();
    if (columns[i].align == Align::kRight) line += padding;
    line += Paint(cells[i], colors[i]);
    if (columns[i].align == Align::kLeft && !last) line += padding;
  }
  while (line.ends_with(' ')) line.pop_back();
  out << line << '\n';
}

}  // namespace

void TablePrinter::AddRow(std::vector<std::string> cells) {
  cells.resize(columns_.size());
  for (std::string& cell : cells) cell = EscapeForCell(cell);
  rows_.push_back(std::move(cells));
}

void TablePrinter::Print(std::ostream& out, const TableStyle& style) const {
  std::vector<size_t> widths;
  std::vector<std::string> titles;
  for (const Column& column : columns_) {
    widths.push_back(DisplayWidth(column.title));
    titles.push_back(column.title);
  }
  for (const auto& row : rows_) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], DisplayWidth(row[i]));
  }
  std::vector<std::string_view> colors(columns_.size(), style.color ? kBold : std::string_view());
  PrintLine(out, columns_, widths, titles, colors);
  if (style.rule) {
    size_t total = columns_.empty() ? 0 : (columns_.size() - 1) * kGap.size();
    for (const size_t width : widths) total += width;
    for (size_t i = 0; i < total; ++i) out << "─";
    out << '\n';
  }
  for (const auto& row : rows_) {
    for (size_t i = 0; i < row.size(); ++i) {
      const bool colored = style.color && columns_[i].is_state;
      colors[i] = colored ? ColorOfState(row[i]) : std::string_view();
    }
    PrintLine(out, columns_, widths, row, colors);
  }
}

void PrintFields(std::ostream& out, const Fields& fields, const TableStyle& style) {
  size_t width = 0;
  for (const auto& field : fields) width = std::max(width, DisplayWidth(field.first));
  for (const auto& [name, value] : fields) {
    const std::string padding(width - DisplayWidth(name), ' ');
    const std::string_view name_color = style.color ? kBold : std::string_view();
    const std::string_view value_color =
        style.color && name == "state" ? ColorOfState(value) : std::string_view();
    out << Paint(name + ":", name_color) << padding << ' '
        << Paint(EscapeForCell(value), value_color) << '\n';
  }
}

}  // namespace corpusd::ctl
