#include "engine/model/json_text.h"

#include <set>
#include <vector>

namespace corpusd {
namespace {

constexpr int kDepthMax = 64;

// What the parser meets on its way; the values themselves are the parser's business.
class Watch {
 public:
  bool Event(int depth, nlohmann::json::parse_event_t event, const nlohmann::json& parsed) {
    using Kind = nlohmann::json::parse_event_t;
    if (depth > kDepthMax) too_deep_ = true;
    if (event == Kind::object_start) keys_.emplace_back();
    if (event == Kind::object_end && !keys_.empty()) keys_.pop_back();
    if (event == Kind::key && !keys_.empty()) {
      const auto& key = parsed.get_ref<const std::string&>();
      if (!keys_.back().insert(key).second && repeated_.empty()) repeated_ = key;
    }
    return true;
  }
  bool too_deep() const { return too_deep_; }
  const std::string& repeated() const { return repeated_; }

 private:
  std::vector<std::set<std::string>> keys_;  // of the open objects
  std::string repeated_;
  bool too_deep_ = false;
};

}  // namespace

Result<nlohmann::json> ParseJsonObject(std::string_view text, const std::string& where) {
  Watch watch;
  auto parsed = nlohmann::json::parse(
      text.begin(), text.end(),
      [&](int depth, nlohmann::json::parse_event_t event, nlohmann::json& value) {
        return watch.Event(depth, event, value);
      },
      /*allow_exceptions=*/false);
  if (parsed.is_discarded()) return InvalidArgumentError(where + ": is not valid JSON");
  if (!parsed.is_object()) return InvalidArgumentError(where + ": is not a JSON object");
  if (watch.too_deep()) {
    return InvalidArgumentError(where + ": nests deeper than " + std::to_string(kDepthMax));
  }
  if (!watch.repeated().empty()) {
    return InvalidArgumentError(where + ": has the key '" + watch.repeated() +
                                "' twice in one object");
  }
  return parsed;
}

const nlohmann::json* FindMember(const nlohmann::json& object, std::string_view key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

bool ReadWholeNumber(const nlohmann::json& value, uint64_t* number) {
  if (value.is_number_unsigned()) {
    *number = value.get<uint64_t>();
    return true;
  }
  if (!value.is_number_integer() || value.get<int64_t>() < 0) return false;
  *number = static_cast<uint64_t>(value.get<int64_t>());
  return true;
}

}  // namespace corpusd
