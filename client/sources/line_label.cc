#include "client/sources/line_label.h"

#include <algorithm>
#include <charconv>
#include <optional>

namespace corpusd::sources {
namespace {

// Takes "L12" off the front.
std::optional<uint64_t> TakeLine(std::string_view* text) {
  if (!text->starts_with('L')) return std::nullopt;
  uint64_t line = 0;
  const char* begin = text->data() + 1;
  const auto [end, error] = std::from_chars(begin, text->data() + text->size(), line);
  if (error != std::errc() || end == begin || line == 0) return std::nullopt;
  text->remove_prefix(static_cast<size_t>(end - text->data()));
  return line;
}

}  // namespace

std::string LinesLabel(std::string_view path, uint64_t first, uint64_t last) {
  return std::string(path) + "#L" + std::to_string(first) + "-L" + std::to_string(last);
}

std::string LineLabel(std::string_view path, uint64_t line) {
  return std::string(path) + "#L" + std::to_string(line);
}

FileLines LinesInFile(std::string_view label, uint64_t first, uint64_t last) {
  const FileLines own = {label, first, last};
  if (first == 0) return own;  // not known
  const size_t at = label.rfind('#');
  if (at == std::string_view::npos || at == 0) return own;
  std::string_view rest = label.substr(at + 1);
  const auto begin = TakeLine(&rest);
  if (!begin) return own;
  const std::string_view path = label.substr(0, at);
  if (rest.empty()) return {path, *begin, *begin};
  if (!rest.starts_with('-')) return own;
  rest.remove_prefix(1);
  const auto end = TakeLine(&rest);
  if (!end || !rest.empty() || *end < *begin) return own;
  const uint64_t span = *end - *begin;
  return {path, *begin + std::min(std::max<uint64_t>(first, 1) - 1, span),
          *begin + std::min(std::max<uint64_t>(last, 1) - 1, span)};
}

}  // namespace corpusd::sources
