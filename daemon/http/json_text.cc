#include "daemon/http/json_text.h"

#include <algorithm>
#include <cmath>

namespace corpusd {
namespace {

// Before anything is allocated: how deep and how many. Brackets inside of texts do not count.
Status CheckSize(std::string_view text) {
  size_t depth = 0, values = 1;
  bool inside = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (inside) {
      if (c == '\\') ++i;
      if (c == '"') inside = false;
      continue;
    }
    if (c == '"') inside = true;
    if (c == ',' || c == '[' || c == '{') ++values;
    if (c == '[' || c == '{') ++depth;
    if ((c == ']' || c == '}') && depth > 0) --depth;
    if (depth > kJsonDepthMax) {
      return InvalidArgumentError("the JSON is nested deeper than " +
                                  std::to_string(kJsonDepthMax) + " levels");
    }
    if (values > kJsonValuesMax) {
      return InvalidArgumentError("the JSON has more than " + std::to_string(kJsonValuesMax) +
                                  " values");
    }
  }
  return OkStatus();
}

}  // namespace

Result<Json> ParseJson(std::string_view text) {
  RETURN_IF_ERROR(CheckSize(text));
  Json value = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (value.is_discarded()) return InvalidArgumentError("the body is no JSON in UTF-8");
  return value;
}

Result<Json> ParseJsonObject(std::string_view text) {
  ASSIGN_OR_RETURN(Json value, ParseJson(text));
  if (!value.is_object()) return InvalidArgumentError("the body is JSON, but no object");
  return value;
}

std::string JsonText(const OrderedJson& value) {
  return value.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

HttpResponse JsonReply(const OrderedJson& value, int status) {
  HttpResponse response;
  response.status = status;
  response.body = JsonText(value);
  return response;
}

void JsonFields::Refuse(std::string_view field, const std::string& why) {
  const std::string name = prefix_ + std::string(field);
  Refuse(BadRequest("'" + name + "' " + why, name));
}

const Json* JsonFields::Find(std::string_view field) const {
  const auto entry = object_.find(std::string(field));
  return entry == object_.end() || entry->is_null() ? nullptr : &*entry;
}

std::string JsonFields::Text(std::string_view field, std::string_view otherwise) {
  const Json* const value = Find(field);
  if (value == nullptr) return std::string(otherwise);
  if (value->is_string()) return value->get_ref<const std::string&>();
  Refuse(field, "must be a string");
  return std::string(otherwise);
}

bool JsonFields::Flag(std::string_view field, bool otherwise) {
  const Json* const value = Find(field);
  if (value == nullptr) return otherwise;
  if (value->is_boolean()) return value->get<bool>();
  Refuse(field, "must be true or false");
  return otherwise;
}

double JsonFields::Number(std::string_view field, double low, double high, double otherwise) {
  const Json* const value = Find(field);
  if (value == nullptr) return otherwise;
  const double number = value->is_number() ? value->get<double>() : NAN;
  if (number >= low && number <= high) return number;
  Refuse(field, "must be a number from " + JsonText(low) + " to " + JsonText(high));
  return otherwise;
}

int64_t JsonFields::Whole(std::string_view field, int64_t low, int64_t high, int64_t otherwise) {
  const Json* const value = Find(field);
  if (value == nullptr) return otherwise;
  const bool unsigned_fits =
      !value->is_number_unsigned() || value->get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX);
  if (value->is_number_integer() && unsigned_fits) {
    const auto number = value->get<int64_t>();
    if (number >= low && number <= high) return number;
  }
  Refuse(field,
         "must be a whole number from " + std::to_string(low) + " to " + std::to_string(high));
  return otherwise;
}

const Json* JsonFields::Object(std::string_view field) {
  const Json* const value = Find(field);
  if (value == nullptr || value->is_object()) return value;
  Refuse(field, "must be an object");
  return nullptr;
}

const Json* JsonFields::Array(std::string_view field) {
  const Json* const value = Find(field);
  if (value == nullptr || value->is_array()) return value;
  Refuse(field, "must be an array");
  return nullptr;
}

std::vector<std::string> JsonFields::Texts(std::string_view field, size_t most) {
  const Json* const value = Find(field);
  if (value == nullptr) return {};
  if (value->is_string()) return {value->get_ref<const std::string&>()};
  std::vector<std::string> texts;
  const bool strings = value->is_array() && value->size() <= most &&
                       std::all_of(value->begin(), value->end(),
                                   [](const Json& entry) { return entry.is_string(); });
  if (!strings) {
    Refuse(field, "must be a string or an array of at most " + std::to_string(most) + " strings");
    return texts;
  }
  for (const Json& entry : *value) texts.push_back(entry.get_ref<const std::string&>());
  return texts;
}

}  // namespace corpusd
