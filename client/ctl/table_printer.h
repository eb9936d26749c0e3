// client/ctl/table_printer.h -- TablePrinter: rows of text in aligned columns. On a terminal with a
// rule under the headings and coloured states; otherwise plain, for grep and awk. Cells are escaped
// here, so a name never reaches the terminal raw. Values; one thread.
#pragma once

#include <ostream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace corpusd::ctl {

enum class Align { kLeft, kRight };

struct Column {
  std::string title;
  Align align = Align::kLeft;
  bool is_state = false;  // coloured by what it says: "ready" green, "failed" red, ...
};

struct TableStyle {
  bool rule = false;
  bool color = false;
};

class TablePrinter {
 public:
  explicit TablePrinter(std::vector<Column> columns) : columns_(std::move(columns)) {}

  // A short row is filled up with empty cells; cells beyond the last column are dropped.
  void AddRow(std::vector<std::string> cells);
  // An empty table prints its headings.
  void Print(std::ostream& out, const TableStyle& style) const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// "name:  value" lines with the values under each other.
using Fields = std::vector<std::pair<std::string, std::string>>;
void PrintFields(std::ostream& out, const Fields& fields, const TableStyle& style);

}  // namespace corpusd::ctl
