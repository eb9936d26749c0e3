#include "client/ctl/output_format.h"

#include <nlohmann/json.hpp>

#include "client/ctl/exit_code.h"
#include "client/ctl/text.h"
#include "client/ctl/yaml_writer.h"

namespace corpusd::ctl {
namespace {

// Broken UTF-8 in an answer must not end in an exception of the library.
std::string Dump(const nlohmann::ordered_json& value, int indent) {
  return value.dump(indent, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace

const std::vector<std::string>& OutputModeNames() {
  static const std::vector<std::string> kNames = {"table", "wide", "json", "jsonl", "yaml", "name"};
  return kNames;
}

std::optional<OutputMode> ParseOutputMode(std::string_view name) {
  const std::vector<std::string>& names = OutputModeNames();
  for (size_t i = 0; i < names.size(); ++i) {
    if (names[i] == name) return static_cast<OutputMode>(i);
  }
  return std::nullopt;
}

bool IsStructured(OutputMode mode) {
  return mode == OutputMode::kJson || mode == OutputMode::kJsonLines || mode == OutputMode::kYaml;
}

bool HasJsonErrors(OutputMode mode) {
  return mode == OutputMode::kJson || mode == OutputMode::kJsonLines;
}

void PrintStructured(std::ostream& out, OutputMode mode, const nlohmann::ordered_json& value) {
  if (mode == OutputMode::kYaml) {
    out << ToYaml(value);
  } else if (mode == OutputMode::kJson) {
    out << Dump(value, 2) << '\n';
  } else if (value.is_array()) {
    for (const auto& element : value) out << Dump(element, -1) << '\n';
  } else {
    out << Dump(value, -1) << '\n';
  }
}

int PrintError(std::ostream& err, OutputMode mode, const ClientError& error) {
  const ExitCode exit_code = ExitCodeOf(error.code_text);
  if (HasJsonErrors(mode)) {
    const nlohmann::ordered_json object = {{"error",
                                            {{"code", error.code_text},
                                             {"message", error.message},
                                             {"exit_code", static_cast<int>(exit_code)}}}};
    err << Dump(object, -1) << '\n';
  } else {
    err << "corpusctl: " << EscapeForCell(error.message) << '\n';
  }
  err.flush();
  return exit_code;
}

}  // namespace corpusd::ctl
