// client/ctl/output_format.h -- the modes of -o, and writing values and errors in them. Knows
// nothing of verbs. Pure but for the stream written to; one thread.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include "client/client_error.h"

namespace corpusd::ctl {

enum class OutputMode { kTable, kWide, kJson, kJsonLines, kYaml, kName };

// The names that -o takes, in the order that help shows them.
const std::vector<std::string>& OutputModeNames();
std::optional<OutputMode> ParseOutputMode(std::string_view name);

// json, jsonl and yaml: the modes that carry whole objects.
bool IsStructured(OutputMode mode);
// Whether errors are one JSON object on stderr.
bool HasJsonErrors(OutputMode mode);

// json: indented; jsonl: one line, or one for each element of an array; yaml.
// REQUIRES: IsStructured(mode).
void PrintStructured(std::ostream& out, OutputMode mode, const nlohmann::ordered_json& value);

// One sentence, or {"error":{"code","message","exit_code"}}. RETURNS the exit code of the error.
int PrintError(std::ostream& err, OutputMode mode, const ClientError& error);

}  // namespace corpusd::ctl
