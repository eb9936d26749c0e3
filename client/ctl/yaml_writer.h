// client/ctl/yaml_writer.h -- a JSON value as block-style YAML 1.2, readable by YAML 1.1 parsers
// too: every string that one of them could take for something else is quoted. Writes only; never
// reads YAML. Pure.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace corpusd::ctl {

// Ends in a newline.
std::string ToYaml(const nlohmann::ordered_json& value);

}  // namespace corpusd::ctl
