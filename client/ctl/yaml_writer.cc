#include "client/ctl/yaml_writer.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string_view>

namespace corpusd::ctl {
namespace {

using Json = nlohmann::ordered_json;

bool IsLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

// Words that a YAML 1.1 or 1.2 parser reads as a boolean, null, infinity or a merge.
bool IsReservedWord(std::string_view text) {
  constexpr std::array kWords = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"};
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return std::find(kWords.begin(), kWords.end(), lower) != kWords.end();
}

// Plain only what is beyond doubt: starts with a letter, goes on with letters, digits and a few
// marks.
bool IsPlainSafe(std::string_view text) {
  if (text.empty() || !IsLetter(text.front()) || IsReservedWord(text)) return false;
  return std::all_of(text.begin(), text.end(), [](char c) {
    return IsLetter(c) || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.' || c == '/';
  });
}

// A JSON string is a double-quoted YAML scalar.
std::string Scalar(const Json& value) {
  if (value.is_string() && IsPlainSafe(value.get_ref<const std::string&>())) {
    return value.get<std::string>();
  }
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

bool IsBlock(const Json& value) { return value.is_structured() && !value.empty(); }

void Write(std::string& out, const Json& value, size_t indent);

// An entry of a sequence starts on the line of its dash.
void WriteSequence(std::string& out, const Json& value, size_t indent) {
  for (const Json& element : value) {
    out.append(indent, ' ').append("- ");
    if (!IsBlock(element)) {
      out.append(Scalar(element)).append("\n");
      continue;
    }
    std::string block;
    Write(block, element, indent + 2);
    out.append(block, indent + 2, std::string::npos);
  }
}

void Write(std::string& out, const Json& value, size_t indent) {
  if (!IsBlock(value)) {
    out.append(indent, ' ').append(Scalar(value)).append("\n");
    return;
  }
  if (value.is_array()) return WriteSequence(out, value, indent);
  for (const auto& [key, member] : value.items()) {
    out.append(indent, ' ').append(Scalar(Json(key))).append(":");
    if (IsBlock(member)) {
      out.append("\n");
      Write(out, member, indent + 2);
    } else {
      out.append(" ").append(Scalar(member)).append("\n");
    }
  }
}

}  // namespace

std::string ToYaml(const Json& value) {
  std::string out;
  Write(out, value, 0);
  return out;
}

}  // namespace corpusd::ctl
