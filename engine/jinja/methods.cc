// Methods of Python's strings and dictionaries, and the functions that templates have.
#include <algorithm>
#include <array>
#include <ctime>

#include "engine/jinja/functions.h"
#include "engine/jinja/text.h"

namespace corpusd::jinja {
namespace {

constexpr std::array<std::string_view, 22> kTextMethods = {
    "strip",      "lstrip",     "rstrip", "split",        "rsplit",       "splitlines",
    "replace",    "startswith", "upper",  "endswith",     "lower",        "title",
    "capitalize", "join",       "find",   "removeprefix", "removesuffix", "count",
    "isdigit",    "isspace",    "rfind",  "index"};
constexpr std::array<std::string_view, 4> kDictMethods = {"items", "keys", "values", "get"};
constexpr std::array<std::string_view, 2> kListMethods = {"index", "count"};
constexpr std::array<std::string_view, 4> kFunctions = {"range", "dict", "raise_exception",
                                                        "strftime_now"};

template <size_t kCount>
bool Has(const std::array<std::string_view, kCount>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

Value ListOf(const std::vector<std::string_view>& texts) {
  std::vector<Value> items;
  for (const std::string_view text : texts) items.emplace_back(text);
  return Value::MakeList(std::move(items));
}

// One text, or any of a list.
Result<bool> StartsOrEnds(const std::string& text, bool starts, const Arguments& arguments) {
  if (arguments.values.empty()) return TemplateError(arguments.line, "a prefix is missing");
  const Value& wanted = arguments.values[0];
  const std::vector<Value> one = {wanted};
  for (const Value& part : wanted.is_list() ? wanted.items() : one) {
    if (!part.is_string()) {
      return TemplateError(arguments.line, std::string(part.KindName()) + " is no prefix of text");
    }
    if (starts ? text.starts_with(part.text()) : text.ends_with(part.text())) return true;
  }
  return false;
}

Result<Value> Join(const std::string& separator, const Arguments& arguments, Budget* budget) {
  if (arguments.values.empty()) return TemplateError(arguments.line, "join() needs a list");
  ASSIGN_OR_RETURN(const auto items, Iterate(arguments.values[0], arguments.line, budget));
  std::string joined;
  for (size_t i = 0; i < items.size(); ++i) {
    if (!items[i].is_string()) {
      return TemplateError(arguments.line,
                           "join() of " + std::string(items[i].KindName()) + ", not str");
    }
    if (i > 0) joined += separator;
    joined += items[i].text();
    if (joined.size() > Budget::kStringBytesMax) break;  // Keep refuses it
  }
  return Value(std::move(joined));
}

bool AllOf(const std::string& text, bool (*holds)(std::string_view)) {
  const auto characters = Characters(text);
  return !characters.empty() && std::all_of(characters.begin(), characters.end(), holds);
}

Result<Value> SplitOrStrip(const std::string& text, const std::string& name,
                           const Arguments& arguments) {
  const Value* const first = arguments.Get(0, name.ends_with("split") ? "sep" : "chars");
  if (first != nullptr && first->is_string() && first->text().empty() && name.ends_with("split")) {
    return TemplateError(arguments.line, "split() with an empty separator");
  }
  const bool given = first != nullptr && !first->is_none();
  ASSIGN_OR_RETURN(const std::string part,
                   given ? arguments.TextOr(0, "sep", "") : Result<std::string>(std::string()));
  if (name == "strip") return Value(Strip(text, part, Side::kBoth));
  if (name == "lstrip") return Value(Strip(text, part, Side::kLeft));
  if (name == "rstrip") return Value(Strip(text, part, Side::kRight));
  ASSIGN_OR_RETURN(const int64_t limit, arguments.IntegerOr(1, "maxsplit", -1));
  return ListOf(Split(text, part, limit, name == "rsplit"));
}

Result<Value> Search(const std::string& text, const std::string& name, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const std::string part, arguments.TextOr(0, "sub", ""));
  if (name == "count") {
    if (part.empty()) return Value(static_cast<int64_t>(CountCharacters(text)) + 1);
    int64_t count = 0;
    for (size_t at = text.find(part); at != std::string::npos;
         at = text.find(part, at + part.size())) {
      ++count;
    }
    return Value(count);
  }
  const size_t at = name == "rfind" ? text.rfind(part) : text.find(part);
  if (at == std::string::npos) {
    if (name == "index") return TemplateError(arguments.line, "index(): not found");
    return Value(int64_t{-1});
  }
  return Value(static_cast<int64_t>(CountCharacters(std::string_view(text).substr(0, at))));
}

Result<Value> CallTextMethod(const std::string& text, const std::string& name,
                             const Arguments& arguments, Budget* budget) {
  RETURN_IF_ERROR(budget->Spend(arguments.line, 1 + text.size() / 16));
  if (name.ends_with("split") || name.ends_with("strip")) {
    return SplitOrStrip(text, name, arguments);
  }
  if (name == "splitlines") return ListOf(SplitLines(text));
  if (name == "join") return Join(text, arguments, budget);
  if (name == "upper") return Value(Upper(text));
  if (name == "lower") return Value(Lower(text));
  if (name == "title") return Value(Title(text));
  if (name == "capitalize") return Value(Capitalized(text));
  if (name == "isspace") return Value(AllOf(text, IsSpace));
  if (name == "isdigit") {
    return Value(AllOf(text, [](std::string_view c) { return c[0] >= '0' && c[0] <= '9'; }));
  }
  if (name == "startswith" || name == "endswith") {
    ASSIGN_OR_RETURN(const bool holds, StartsOrEnds(text, name == "startswith", arguments));
    return Value(holds);
  }
  if (name == "replace") {
    ASSIGN_OR_RETURN(const std::string old_text, arguments.TextOr(0, "old", ""));
    ASSIGN_OR_RETURN(const std::string new_text, arguments.TextOr(1, "new", ""));
    ASSIGN_OR_RETURN(const int64_t count, arguments.IntegerOr(2, "count", -1));
    RETURN_IF_ERROR(budget->Spend(arguments.line, text.size() * new_text.size() / 64));
    return Value(ReplaceAll(text, old_text, new_text, count));
  }
  if (name == "removeprefix" || name == "removesuffix") {
    ASSIGN_OR_RETURN(const std::string part, arguments.TextOr(0, "prefix", ""));
    const bool front = name == "removeprefix";
    if (front ? !text.starts_with(part) : !text.ends_with(part)) return Value(text);
    return Value(text.substr(front ? part.size() : 0, text.size() - part.size()));
  }
  return Search(text, name, arguments);
}

Result<Value> CallDictMethod(const Value& self, const std::string& name, const Arguments& arguments,
                             Budget* budget) {
  if (name == "get") {
    if (arguments.values.empty()) return TemplateError(arguments.line, "get() needs a key");
    ASSIGN_OR_RETURN(Value found, GetItem(self, arguments.values[0], arguments.line, budget));
    if (!found.is_undefined()) return found;
    const Value* const otherwise = arguments.Get(1, "default");
    return otherwise == nullptr ? Value() : *otherwise;
  }
  std::vector<Value> items;
  for (const Entry& entry : self.entries()) {
    if (name == "keys") items.emplace_back(entry.first);
    if (name == "values") items.push_back(entry.second);
    if (name == "items") items.push_back(Value::MakeList({Value(entry.first), entry.second}));
  }
  return Value::MakeList(std::move(items));
}

Result<Value> CallListMethod(const Value& self, const std::string& name, const Arguments& arguments,
                             Budget* budget) {
  if (arguments.values.empty()) return TemplateError(arguments.line, name + "() needs a value");
  RETURN_IF_ERROR(budget->Spend(arguments.line, self.size()));
  int64_t count = 0;
  for (size_t i = 0; i < self.items().size(); ++i) {
    if (!self.items()[i].Equals(arguments.values[0])) continue;
    if (name == "index") return Value(static_cast<int64_t>(i));
    ++count;
  }
  if (name == "index") return TemplateError(arguments.line, "index(): not found");
  return Value(count);
}

Result<Value> Range(const Arguments& arguments) {
  constexpr int64_t kRangeMax = 100000;  // Jinja's sandbox has the same
  int64_t bounds[3] = {0, 0, 1};
  const size_t count = arguments.values.size();
  if (count < 1 || count > 3) return TemplateError(arguments.line, "range() takes 1 to 3 numbers");
  for (size_t i = 0; i < count; ++i) {
    ASSIGN_OR_RETURN(bounds[count == 1 ? 1 : i], arguments.IntegerOr(i, "", 0));
  }
  const int64_t step = bounds[2];
  if (step == 0) return TemplateError(arguments.line, "range() with a step of 0");
  std::vector<Value> items;
  for (int64_t i = bounds[0]; step > 0 ? i < bounds[1] : i > bounds[1];) {
    if (static_cast<int64_t>(items.size()) == kRangeMax) {
      return TemplateError(arguments.line, "range() of over 100000 numbers");
    }
    items.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return Value::MakeList(std::move(items));
}

// The day that Llama 3's templates write when they are given none: a corpus's tokens, and with them
// the digests of its blocks, must not change from one day to the next.
Result<Value> FixedDate(const Arguments& arguments) {
  ASSIGN_OR_RETURN(const std::string format, arguments.TextOr(0, "format", "%d %b %Y"));
  if (format.empty() || format.size() > 100) {
    return TemplateError(arguments.line, "strftime_now() needs a format of up to 100 characters");
  }
  std::tm date{};
  date.tm_year = 2024 - 1900;
  date.tm_mon = 6;
  date.tm_mday = 26;
  date.tm_wday = 5;
  date.tm_yday = 207;
  char text[1024];
  return Value(std::string(text, std::strftime(text, sizeof text, format.c_str(), &date)));
}

}  // namespace

bool HasMethod(const Value& self, std::string_view name) {
  if (self.is_string()) return Has(kTextMethods, name);
  if (self.is_dict()) return Has(kDictMethods, name);
  return self.is_list() && Has(kListMethods, name);
}

Result<Value> CallMethod(const Value& self, const std::string& name, const Arguments& arguments,
                         Budget* budget) {
  Result<Value> result = self.is_string() ? CallTextMethod(self.text(), name, arguments, budget)
                         : self.is_dict() ? CallDictMethod(self, name, arguments, budget)
                                          : CallListMethod(self, name, arguments, budget);
  if (!result.ok()) return result.status();
  return budget->Keep(std::move(*result), arguments.line);
}

bool IsFunction(std::string_view name) { return Has(kFunctions, name); }

Result<Value> CallFunction(const std::string& name, const Arguments& arguments, Budget* budget) {
  if (name == "range") {
    ASSIGN_OR_RETURN(Value numbers, Range(arguments));
    return budget->Keep(std::move(numbers), arguments.line);
  }
  if (name == "strftime_now") return FixedDate(arguments);
  if (name == "dict") {
    std::vector<Entry> entries;
    if (!arguments.values.empty()) {
      if (!arguments.values[0].is_dict()) {
        return TemplateError(arguments.line, "dict() takes a dictionary and named values");
      }
      entries = arguments.values[0].entries();
    }
    entries.insert(entries.end(), arguments.named.begin(), arguments.named.end());
    RETURN_IF_ERROR(budget->Spend(arguments.line, entries.size() * entries.size()));
    return budget->Keep(Value::MakeDict(std::move(entries)), arguments.line);
  }
  ASSIGN_OR_RETURN(const std::string message, arguments.TextOr(0, "message", ""));
  return FailedPreconditionError(
      "line " + std::to_string(arguments.line) +
      ": the template refuses the conversation: " + message.substr(0, 300));
}

}  // namespace corpusd::jinja
