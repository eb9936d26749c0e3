#include "client/sources/json_lines.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "client/sources/line_label.h"

namespace corpusd::sources {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kDepthMax = 100;

// Printing and destroying a value recurse, so its depth is looked at before it is read.
bool IsTooDeep(std::string_view line) {
  int depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (quoted) {
      if (c == '\\') ++i;
      quoted = c != '"';
    } else if (c == '"') {
      quoted = true;
    } else if (c == '{' || c == '[') {
      if (++depth > kDepthMax) return true;
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return false;
}

std::string TextOf(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// A field by its name, else by the names on the way to it.
const Json* Find(const Json& value, std::string_view field) {
  if (!value.is_object()) return nullptr;
  const auto whole = value.find(std::string(field));
  if (whole != value.end()) return &*whole;
  const size_t dot = field.find('.');
  if (dot == std::string_view::npos) return nullptr;
  const auto outer = value.find(std::string(field.substr(0, dot)));
  return outer == value.end() ? nullptr : Find(*outer, field.substr(dot + 1));
}

std::string RenderWhole(const Json& value) {
  if (!value.is_object()) return TextOf(value) + "\n";
  std::string text;
  for (const auto& item : value.items()) {
    text += item.key() + ": " + TextOf(item.value()) + "\n";
  }
  return text;
}

}  // namespace

RenderedLine RenderJsonLine(std::string_view line, const std::string& text_field) {
  if (IsTooDeep(line)) return {std::nullopt, SkipReason::kBadLine};
  const Json value = Json::parse(line, nullptr, false);
  if (value.is_discarded()) return {std::nullopt, SkipReason::kBadLine};
  if (text_field.empty()) return {RenderWhole(value), {}};
  const Json* field = Find(value, text_field);
  if (field == nullptr || field->is_null()) return {std::nullopt, SkipReason::kNoField};
  return {TextOf(*field) + "\n", {}};
}

JsonLines::JsonLines(std::string path, std::string text_field, DocumentSink& sink, SkipLog& skips)
    : path_(std::move(path)),
      text_field_(std::move(text_field)),
      sink_(sink),
      skips_(skips),
      cutter_(kLineBytesMax, [this](const LinePart& part) { return TakePart(part); }) {}

bool JsonLines::TakePart(const LinePart& part) {
  if (!part.starts) return true;  // said already
  const std::string label = LineLabel(path_, part.number);
  if (!part.ends) {
    skips_.Add(SkipReason::kLongLine, label, "longer than 4 MiB");
    return true;
  }
  if (part.text.find_first_not_of(" \t\r") == std::string_view::npos) return true;
  const RenderedLine line = RenderJsonLine(part.text, text_field_);
  if (!line.text) {
    skips_.Add(line.reason, label);
    return true;
  }
  return sink_.Begin(label) && sink_.Write(*line.text) && sink_.End();
}

}  // namespace corpusd::sources
