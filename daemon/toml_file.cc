#define TOML_EXCEPTIONS 0
#include <toml++/toml.h>

#include <sstream>

#include "daemon/options.h"

namespace corpusd {
namespace {

Status ReadValue(const std::string& key, const toml::node& node, const std::string& path,
                 std::map<std::string, TomlValue>* values) {
  const unsigned line = node.source().begin.line;
  if (const auto* text = node.as_string()) {
    (*values)[key] = {text->get(), line};
  } else if (const auto* number = node.as_integer()) {
    (*values)[key] = {std::to_string(number->get()), line};
  } else {
    return InvalidArgumentError("'" + key + "' in line " + std::to_string(line) + " of '" + path +
                                "' must be a string or a whole number");
  }
  return OkStatus();
}

}  // namespace

Result<std::map<std::string, TomlValue>> ReadTomlFile(const std::string& path) {
  const toml::parse_result parsed = toml::parse_file(path);
  if (!parsed) {
    std::ostringstream where;
    where << "cannot read '" << path << "': " << parsed.error().description();
    if (parsed.error().source().begin.line > 0) {
      where << " in line " << parsed.error().source().begin.line;
    }
    return InvalidArgumentError(where.str());
  }
  std::map<std::string, TomlValue> values;
  for (const auto& [name, node] : parsed.table()) {
    const std::string key(name.str());
    if (const auto* section = node.as_table()) {
      for (const auto& [inner, value] : *section) {
        RETURN_IF_ERROR(ReadValue(key + "." + std::string(inner.str()), value, path, &values));
      }
    } else {
      RETURN_IF_ERROR(ReadValue(key, node, path, &values));
    }
  }
  return values;
}

}  // namespace corpusd
