// engine/model/json_text.h -- JSON out of files that nobody vouches for: parsed whole, with limits,
// and read field by field with one clear sentence where a value is not what it should be. Pure; any
// thread.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "store/base/result.h"

namespace corpusd {

// `where` names the text in messages, such as a path. kInvalidArgument: not JSON, not one object,
// a key twice in one object, or nested deeper than any model file is.
Result<nlohmann::json> ParseJsonObject(std::string_view text, const std::string& where);

// A member of an object, or null if it is missing or JSON null.
const nlohmann::json* FindMember(const nlohmann::json& object, std::string_view key);

// RETURNS true and the value if `value` is a whole number from 0 to 2^64 - 1.
bool ReadWholeNumber(const nlohmann::json& value, uint64_t* number);

}  // namespace corpusd
