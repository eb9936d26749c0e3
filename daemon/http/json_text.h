// daemon/http/json_text.h -- JSON in and out: texts of strangers parsed within limits of depth and
// number of values, fields read by type with the name of what is wrong, values written as UTF-8
// whatever they hold. Values; any thread.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/http/api_error.h"

namespace corpusd {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;  // replies keep the order that people read

inline constexpr size_t kJsonDepthMax = 32;
inline constexpr size_t kJsonValuesMax = 200000;

// kInvalidArgument: no JSON, not UTF-8, deeper or larger than the limits.
Result<Json> ParseJson(std::string_view text);
// The same of a request's body, which must be an object.
Result<Json> ParseJsonObject(std::string_view text);

// One line; bytes that are not UTF-8 become U+FFFD.
std::string JsonText(const OrderedJson& value);
// 200 unless said otherwise.
HttpResponse JsonReply(const OrderedJson& value, int status = 200);

// Reads fields of an object one after the other and remembers the first that is wrong. Null counts
// as absent; what nobody asks for is ignored. The object must outlive it.
class JsonFields {
 public:
  // prefix: of the object inside the request, such as "stream_options.".
  explicit JsonFields(const Json& object, std::string prefix = "")
      : object_(object), prefix_(std::move(prefix)) {}

  const std::optional<ApiError>& error() const { return error_; }
  void Refuse(std::string_view field, const std::string& why);
  void Refuse(const ApiError& error) {
    if (!error_) error_ = error;
  }

  // RETURNS null if the field is absent or null.
  const Json* Find(std::string_view field) const;
  std::string Text(std::string_view field, std::string_view otherwise = "");
  bool Flag(std::string_view field, bool otherwise);
  double Number(std::string_view field, double low, double high, double otherwise);
  int64_t Whole(std::string_view field, int64_t low, int64_t high, int64_t otherwise);
  // An object; null if there is none.
  const Json* Object(std::string_view field);
  const Json* Array(std::string_view field);
  // A text, or a list of at most `most` texts.
  std::vector<std::string> Texts(std::string_view field, size_t most);

 private:
  const Json& object_;
  const std::string prefix_;
  std::optional<ApiError> error_;
};

}  // namespace corpusd
