#include "engine/model/config_reader.h"

#include <cmath>

#include "engine/model/json_text.h"

namespace corpusd {
namespace {

constexpr size_t kShownBytesMax = 60;

// A value as messages show it.
std::string Shown(const nlohmann::json* value) {
  if (value == nullptr) return "missing";
  std::string text = value->dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  if (text.size() > kShownBytesMax) text = text.substr(0, kShownBytesMax) + "...";
  return text;
}

}  // namespace

Status ConfigReader::Wrong(const std::string& key, const std::string& expected) const {
  return InvalidArgumentError(where_ + ": '" + key + "' is " + Shown(FindMember(object_, key)) +
                              ", expected " + expected);
}

Status ConfigReader::Unsupported(const std::string& what) const {
  return UnimplementedError(where_ + ": " + what);
}

bool ConfigReader::Has(const std::string& key) const { return FindMember(object_, key) != nullptr; }

bool ConfigReader::IsNull(const std::string& key) const {
  const auto found = object_.find(key);
  return found != object_.end() && found->is_null();
}

Result<uint32_t> ConfigReader::Number(const std::string& key, uint64_t max) const {
  const nlohmann::json* const value = FindMember(object_, key);
  uint64_t number = 0;
  if (value == nullptr || !ReadWholeNumber(*value, &number) || number < 1 || number > max) {
    return Wrong(key, "a whole number from 1 to " + std::to_string(max));
  }
  return static_cast<uint32_t>(number);
}

Result<uint32_t> ConfigReader::NumberOr(const std::string& key, uint64_t max,
                                        uint32_t otherwise) const {
  return Has(key) ? Number(key, max) : Result<uint32_t>(otherwise);
}

Result<double> ConfigReader::Real(const std::string& key) const {
  const nlohmann::json* const value = FindMember(object_, key);
  if (value == nullptr || !value->is_number() || !std::isfinite(value->get<double>())) {
    return Wrong(key, "a number");
  }
  return value->get<double>();
}

Result<double> ConfigReader::RealOr(const std::string& key, double otherwise) const {
  return Has(key) ? Real(key) : Result<double>(otherwise);
}

Result<bool> ConfigReader::FlagOr(const std::string& key, bool otherwise) const {
  const nlohmann::json* const value = FindMember(object_, key);
  if (value == nullptr) return otherwise;
  if (value->is_boolean()) return value->get<bool>();
  if (value->is_number()) return value->get<double>() != 0;
  return Wrong(key, "true or false");
}

Result<std::string> ConfigReader::Text(const std::string& key) const {
  const nlohmann::json* const value = FindMember(object_, key);
  if (value == nullptr || !value->is_string()) return Wrong(key, "a string");
  return value->get<std::string>();
}

Result<std::string> ConfigReader::TextOr(const std::string& key,
                                         const std::string& otherwise) const {
  return Has(key) ? Text(key) : Result<std::string>(otherwise);
}

Result<std::vector<uint32_t>> ConfigReader::Numbers(const std::string& key, uint64_t max,
                                                    size_t count_max) const {
  const nlohmann::json* const value = FindMember(object_, key);
  const auto wrong = [&] {
    return Wrong(key, "a list of at most " + std::to_string(count_max) + " whole numbers up to " +
                          std::to_string(max));
  };
  if (value == nullptr || !value->is_array() || value->size() > count_max) return wrong();
  std::vector<uint32_t> numbers;
  for (const nlohmann::json& element : *value) {
    uint64_t number = 0;
    if (!ReadWholeNumber(element, &number) || number > max) return wrong();
    numbers.push_back(static_cast<uint32_t>(number));
  }
  return numbers;
}

Result<std::vector<std::string>> ConfigReader::Texts(const std::string& key,
                                                     size_t count_max) const {
  const nlohmann::json* const value = FindMember(object_, key);
  const auto wrong = [&] {
    return Wrong(key, "a list of at most " + std::to_string(count_max) + " strings");
  };
  if (value == nullptr || !value->is_array() || value->size() > count_max) return wrong();
  std::vector<std::string> texts;
  for (const nlohmann::json& element : *value) {
    if (!element.is_string()) return wrong();
    texts.push_back(element.get<std::string>());
  }
  return texts;
}

Result<ConfigReader> ConfigReader::Object(const std::string& key) const {
  const nlohmann::json* const value = FindMember(object_, key);
  if (value == nullptr || !value->is_object()) return Wrong(key, "an object");
  return ConfigReader(*value, where_ + " '" + key + "'");
}

}  // namespace corpusd
