// Jinja's filters by name; tojson is transformers' (json.dumps without escapes for HTML).
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "engine/jinja/functions.h"
#include "engine/jinja/text.h"

namespace corpusd::jinja {
namespace {

using FilterFunction = Result<Value> (*)(const Value& input, const Arguments& arguments,
                                         Budget* budget);

Status NotTaken(const Value& input, std::string_view name, const Arguments& arguments) {
  if (input.is_undefined()) return TemplateError(arguments.line, input.undefined_text());
  return TemplateError(arguments.line, "the filter '" + std::string(name) + "' does not take " +
                                           std::string(input.KindName()));
}

// value.a.b, as the argument "attribute" of some filters has it.
Result<Value> Attribute(const Value& value, const std::string& path, const Arguments& arguments,
                        Budget* budget) {
  Value current = value;
  for (const std::string_view name : Split(path, ".", -1, false)) {
    ASSIGN_OR_RETURN(current, GetItem(current, Value(name), arguments.line, budget));
  }
  return current;
}

Result<Value> Trim(const Value& input, const Arguments& arguments, Budget*) {
  ASSIGN_OR_RETURN(const std::string characters, arguments.TextOr(0, "chars", ""));
  return Value(Strip(input.ToText(), characters, Side::kBoth));
}
Result<Value> ToUpper(const Value& input, const Arguments&, Budget*) {
  return Value(Upper(input.ToText()));
}
Result<Value> ToLower(const Value& input, const Arguments&, Budget*) {
  return Value(Lower(input.ToText()));
}
Result<Value> ToTitle(const Value& input, const Arguments&, Budget*) {
  return Value(Title(input.ToText()));
}
Result<Value> ToCapitalized(const Value& input, const Arguments&, Budget*) {
  return Value(Capitalized(input.ToText()));
}
Result<Value> ToString(const Value& input, const Arguments&, Budget*) {
  return input.is_string() ? input : Value(input.ToText());
}
Result<Value> Same(const Value& input, const Arguments&, Budget*) { return input; }

Result<Value> Length(const Value& input, const Arguments& arguments, Budget* budget) {
  if (input.is_undefined()) return Value(int64_t{0});
  if (input.is_list()) return Value(static_cast<int64_t>(input.items().size()));
  if (input.is_dict()) return Value(static_cast<int64_t>(input.entries().size()));
  if (!input.is_string()) return NotTaken(input, "length", arguments);
  RETURN_IF_ERROR(budget->Spend(arguments.line, input.text().size() / 16));
  return Value(static_cast<int64_t>(CountCharacters(input.text())));
}

Result<Value> Default(const Value& input, const Arguments& arguments, Budget*) {
  const bool missing =
      input.is_undefined() || (arguments.FlagOr(1, "boolean", false) && !input.IsTrue());
  if (!missing) return input;
  const Value* const otherwise = arguments.Get(0, "default_value");
  return otherwise == nullptr ? Value("") : *otherwise;
}

Result<Value> ToJson(const Value& input, const Arguments& arguments, Budget* budget) {
  JsonStyle style;
  const Value* const indent = arguments.Get(1, "indent");
  const Value* const first = arguments.Get(0, "ensure_ascii");
  style.ascii_only = first != nullptr && first->IsTrue();
  if (indent != nullptr && indent->is_int()) {
    if (indent->integer() < 0 || indent->integer() > 100) {
      return TemplateError(arguments.line, "tojson with an indent beyond 0 to 100");
    }
    style.indent = static_cast<int>(indent->integer());
  }
  const Value* const separators = arguments.Get(2, "separators");
  if (separators != nullptr && separators->is_list() && separators->items().size() == 2) {
    style.item_separator = separators->items()[0].ToText();
    style.key_separator = separators->items()[1].ToText();
  }
  style.sort_keys = arguments.FlagOr(3, "sort_keys", false);
  RETURN_IF_ERROR(budget->Spend(arguments.line, input.size()));
  std::string json;
  if (!AppendJson(input, style, 0, &json)) return NotTaken(input, "tojson", arguments);
  return Value(std::move(json));
}

Result<Value> JoinTexts(const Value& input, const Arguments& arguments, Budget* budget) {
  ASSIGN_OR_RETURN(const std::string separator, arguments.TextOr(0, "d", ""));
  ASSIGN_OR_RETURN(const std::string attribute, arguments.TextOr(1, "attribute", ""));
  ASSIGN_OR_RETURN(const auto items, Iterate(input, arguments.line, budget));
  std::string joined;
  for (size_t i = 0; i < items.size(); ++i) {
    Value item = items[i];
    if (!attribute.empty()) {
      ASSIGN_OR_RETURN(item, Attribute(item, attribute, arguments, budget));
    }
    if (i > 0) joined += separator;
    joined += item.ToText();
    if (joined.size() > Budget::kStringBytesMax) break;  // Keep refuses it
  }
  return Value(std::move(joined));
}

Result<Value> FirstOf(const Value& input, const Arguments& arguments, Budget* budget) {
  ASSIGN_OR_RETURN(const auto items, Iterate(input, arguments.line, budget));
  return items.empty() ? Value::MakeUndefined("the first of no items is undefined") : items.front();
}
Result<Value> LastOf(const Value& input, const Arguments& arguments, Budget* budget) {
  ASSIGN_OR_RETURN(const auto items, Iterate(input, arguments.line, budget));
  return items.empty() ? Value::MakeUndefined("the last of no items is undefined") : items.back();
}
Result<Value> ToList(const Value& input, const Arguments& arguments, Budget* budget) {
  ASSIGN_OR_RETURN(auto items, Iterate(input, arguments.line, budget));
  return Value::MakeList(std::move(items));
}

Result<Value> Reversed(const Value& input, const Arguments& arguments, Budget* budget) {
  ASSIGN_OR_RETURN(auto items, Iterate(input, arguments.line, budget));
  std::reverse(items.begin(), items.end());
  if (!input.is_string()) return Value::MakeList(std::move(items));
  std::string text;
  for (const Value& item : items) text += item.text();
  return Value(std::move(text));
}

Result<Value> Replace(const Value& input, const Arguments& arguments, Budget* budget) {
  ASSIGN_OR_RETURN(const std::string old_text, arguments.TextOr(0, "old", ""));
  ASSIGN_OR_RETURN(const std::string new_text, arguments.TextOr(1, "new", ""));
  ASSIGN_OR_RETURN(const int64_t count, arguments.IntegerOr(2, "count", -1));
  const std::string text = input.ToText();
  RETURN_IF_ERROR(budget->Spend(arguments.line, text.size() * (1 + new_text.size()) / 64));
  return Value(ReplaceAll(text, old_text, new_text, count));
}

Result<Value> ToInteger(const Value& input, const Arguments& arguments, Budget*) {
  ASSIGN_OR_RETURN(const int64_t otherwise, arguments.IntegerOr(0, "default", 0));
  if (input.is_int() || input.is_bool()) return Value(input.integer());
  double number = 0;
  if (input.is_float()) {
    number = input.number();
  } else if (input.is_string()) {
    const std::string text(Strip(input.text(), "", Side::kBoth));
    char* end = nullptr;
    number = std::strtod(text.c_str(), &end);
    if (text.empty() || *end != '\0') return Value(otherwise);
    int64_t whole = 0;
    const auto read = std::from_chars(text.data(), text.data() + text.size(), whole);
    if (read.ec == std::errc() && read.ptr == text.data() + text.size()) return Value(whole);
  } else {
    return Value(otherwise);
  }
  if (!(std::fabs(number) < 9e18)) return Value(otherwise);
  return Value(static_cast<int64_t>(number));
}

Result<Value> ToReal(const Value& input, const Arguments& arguments, Budget*) {
  if (input.is_number()) return Value(input.number());
  const Value* const otherwise = arguments.Get(0, "default");
  const Value missing = otherwise == nullptr ? Value(0.0) : *otherwise;
  if (!input.is_string()) return missing;
  const std::string text(Strip(input.text(), "", Side::kBoth));
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  return text.empty() || *end != '\0' ? missing : Value(number);
}

Result<Value> Absolute(const Value& input, const Arguments& arguments, Budget*) {
  if (input.is_float()) return Value(std::fabs(input.number()));
  if (!input.is_number() || input.integer() == INT64_MIN) {
    return NotTaken(input, "abs", arguments);
  }
  return Value(input.integer() < 0 ? -input.integer() : input.integer());
}

Result<Value> Items(const Value& input, const Arguments& arguments, Budget* budget) {
  if (input.is_undefined()) return Value::MakeList({});
  if (!input.is_dict()) return NotTaken(input, "items", arguments);
  return CallMethod(input, "items", arguments, budget);
}

// By key, or by value; texts without regard to case unless case_sensitive.
Result<Value> Sorted(std::vector<Value> items, const std::vector<Value>& keys,
                     const Arguments& arguments, bool case_sensitive, bool reverse,
                     Budget* budget) {
  RETURN_IF_ERROR(budget->Spend(arguments.line, items.size() * 20));
  std::vector<Value> folded;
  for (const Value& key : keys) {
    folded.push_back(key.is_string() && !case_sensitive ? Value(Lower(key.text())) : key);
  }
  std::vector<size_t> order(items.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  Status status;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    if (!status.ok()) return false;
    const auto less = reverse ? ApplyCompare("<", folded[b], folded[a], arguments.line, budget)
                              : ApplyCompare("<", folded[a], folded[b], arguments.line, budget);
    if (!less.ok()) status = less.status();
    return less.ok() && *less;
  });
  RETURN_IF_ERROR(status);
  std::vector<Value> sorted;
  for (const size_t i : order) sorted.push_back(std::move(items[i]));
  return Value::MakeList(std::move(sorted));
}

Result<Value> DictSort(const Value& input, const Arguments& arguments, Budget* budget) {
  if (!input.is_dict()) return NotTaken(input, "dictsort", arguments);
  ASSIGN_OR_RETURN(const std::string by, arguments.TextOr(1, "by", "key"));
  std::vector<Value> items;
  std::vector<Value> keys;
  for (const Entry& entry : input.entries()) {
    items.push_back(Value::MakeList({Value(entry.first), entry.second}));
    keys.push_back(by == "value" ? entry.second : Value(entry.first));
  }
  return Sorted(std::move(items), keys, arguments, arguments.FlagOr(0, "case_sensitive", false),
                arguments.FlagOr(2, "reverse", false), budget);
}

Result<Value> Sort(const Value& input, const Arguments& arguments, Budget* budget) {
  ASSIGN_OR_RETURN(const std::string attribute, arguments.TextOr(2, "attribute", ""));
  ASSIGN_OR_RETURN(auto items, Iterate(input, arguments.line, budget));
  std::vector<Value> keys;
  for (const Value& item : items) {
    if (attribute.empty()) {
      keys.push_back(item);
      continue;
    }
    ASSIGN_OR_RETURN(Value key, Attribute(item, attribute, arguments, budget));
    keys.push_back(std::move(key));
  }
  return Sorted(std::move(items), keys, arguments, arguments.FlagOr(1, "case_sensitive", false),
                arguments.FlagOr(0, "reverse", false), budget);
}

Result<Value> Unique(const Value& input, const Arguments& arguments, Budget* budget) {
  ASSIGN_OR_RETURN(const auto items, Iterate(input, arguments.line, budget));
  std::vector<Value> kept;
  for (const Value& item : items) {
    ASSIGN_OR_RETURN(const bool known,
                     ApplyCompare("in", item, Value::MakeList(kept), arguments.line, budget));
    RETURN_IF_ERROR(budget->Spend(arguments.line, kept.size()));
    if (!known) kept.push_back(item);
  }
  return Value::MakeList(std::move(kept));
}

Result<Value> Sum(const Value& input, const Arguments& arguments, Budget* budget) {
  ASSIGN_OR_RETURN(const auto items, Iterate(input, arguments.line, budget));
  Value total(int64_t{0});
  for (const Value& item : items) {
    ASSIGN_OR_RETURN(total, ApplyBinary("+", total, item, arguments.line, budget));
  }
  return total;
}

Result<Value> Extreme(const Value& input, const char* op, const Arguments& arguments,
                      Budget* budget) {
  ASSIGN_OR_RETURN(const auto items, Iterate(input, arguments.line, budget));
  if (items.empty()) return Value::MakeUndefined("the extreme of no items is undefined");
  Value best = items[0];
  for (const Value& item : items) {
    ASSIGN_OR_RETURN(const bool better, ApplyCompare(op, item, best, arguments.line, budget));
    if (better) best = item;
  }
  return best;
}
Result<Value> Smallest(const Value& input, const Arguments& arguments, Budget* budget) {
  return Extreme(input, "<", arguments, budget);
}
Result<Value> Largest(const Value& input, const Arguments& arguments, Budget* budget) {
  return Extreme(input, ">", arguments, budget);
}

Result<Value> Indent(const Value& input, const Arguments& arguments, Budget* budget) {
  const Value* const width = arguments.Get(0, "width");
  std::string space(4, ' ');
  if (width != nullptr && width->is_string()) {
    space = width->text();
  } else {
    ASSIGN_OR_RETURN(const int64_t columns, arguments.IntegerOr(0, "width", 4));
    space.assign(static_cast<size_t>(std::clamp<int64_t>(columns, 0, 1000)), ' ');
  }
  const bool first = arguments.FlagOr(1, "first", false);
  const bool blank = arguments.FlagOr(2, "blank", false);
  const std::string text = input.ToText() + "\n";
  const auto lines = SplitLines(text);
  RETURN_IF_ERROR(budget->Spend(arguments.line, lines.size() * (1 + space.size() / 8)));
  std::string out;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out += '\n';
    if (i == 0 ? first : blank || !lines[i].empty()) out += space;
    out += lines[i];
  }
  return Value(std::move(out));
}

Result<Value> Escape(const Value& input, const Arguments&, Budget*) {
  std::string out;
  for (const char c : input.ToText()) {
    if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else if (c == '"') {
      out += "&#34;";
    } else if (c == '\'') {
      out += "&#39;";
    } else {
      out += c;
    }
  }
  return Value(std::move(out));
}

Result<Value> ByAttribute(const Value& input, const Arguments& arguments, Budget* budget) {
  ASSIGN_OR_RETURN(const std::string name, arguments.TextOr(0, "name", ""));
  return Attribute(input, name, arguments, budget);
}

// map(attribute='a'), or map('filter', its arguments).
Result<Value> Map(const Value& input, const Arguments& arguments, Budget* budget) {
  ASSIGN_OR_RETURN(const auto items, Iterate(input, arguments.line, budget));
  const Value* const attribute = arguments.Get(SIZE_MAX, "attribute");
  std::vector<Value> mapped;
  for (const Value& item : items) {
    if (attribute != nullptr) {
      ASSIGN_OR_RETURN(Value value, Attribute(item, attribute->ToText(), arguments, budget));
      const Value* const otherwise = arguments.Get(SIZE_MAX, "default");
      if (value.is_undefined() && otherwise != nullptr) value = *otherwise;
      mapped.push_back(std::move(value));
      continue;
    }
    ASSIGN_OR_RETURN(const std::string name, arguments.TextOr(0, "name", ""));
    if (name == "map") return UnimplementedError("map('map') is not supported");
    ASSIGN_OR_RETURN(Value value, ApplyFilter(name, item, arguments.WithoutFirst(), budget));
    mapped.push_back(std::move(value));
  }
  return Value::MakeList(std::move(mapped));
}

// The items of which a test holds, or of whose attribute it does; with `wanted` false, the others.
Result<Value> SelectItems(const Value& input, Arguments arguments, bool by_attribute, bool wanted,
                          Budget* budget) {
  std::string attribute;
  if (by_attribute) {
    ASSIGN_OR_RETURN(attribute, arguments.TextOr(0, "attribute", ""));
    arguments = arguments.WithoutFirst();
  }
  ASSIGN_OR_RETURN(const std::string test, arguments.TextOr(0, "test", ""));
  const Arguments rest = arguments.WithoutFirst();
  ASSIGN_OR_RETURN(const auto items, Iterate(input, arguments.line, budget));
  std::vector<Value> selected;
  for (const Value& item : items) {
    Value subject = item;
    if (by_attribute) {
      ASSIGN_OR_RETURN(subject, Attribute(item, attribute, arguments, budget));
    }
    bool holds = subject.IsTrue();
    if (!test.empty()) {
      ASSIGN_OR_RETURN(holds, ApplyTest(test, subject, rest, budget));
    }
    if (holds == wanted) selected.push_back(item);
  }
  return Value::MakeList(std::move(selected));
}
Result<Value> Select(const Value& input, const Arguments& arguments, Budget* budget) {
  return SelectItems(input, arguments, false, true, budget);
}
Result<Value> Reject(const Value& input, const Arguments& arguments, Budget* budget) {
  return SelectItems(input, arguments, false, false, budget);
}
Result<Value> SelectAttribute(const Value& input, const Arguments& arguments, Budget* budget) {
  return SelectItems(input, arguments, true, true, budget);
}
Result<Value> RejectAttribute(const Value& input, const Arguments& arguments, Budget* budget) {
  return SelectItems(input, arguments, true, false, budget);
}

struct NamedFilter {
  std::string_view name;
  FilterFunction function;
};
constexpr std::array kFilters = {
    NamedFilter{"trim", Trim},
    NamedFilter{"upper", ToUpper},
    NamedFilter{"lower", ToLower},
    NamedFilter{"title", ToTitle},
    NamedFilter{"capitalize", ToCapitalized},
    NamedFilter{"string", ToString},
    NamedFilter{"safe", Same},
    NamedFilter{"length", Length},
    NamedFilter{"count", Length},
    NamedFilter{"default", Default},
    NamedFilter{"d", Default},
    NamedFilter{"tojson", ToJson},
    NamedFilter{"join", JoinTexts},
    NamedFilter{"first", FirstOf},
    NamedFilter{"last", LastOf},
    NamedFilter{"list", ToList},
    NamedFilter{"reverse", Reversed},
    NamedFilter{"replace", Replace},
    NamedFilter{"int", ToInteger},
    NamedFilter{"float", ToReal},
    NamedFilter{"abs", Absolute},
    NamedFilter{"items", Items},
    NamedFilter{"dictsort", DictSort},
    NamedFilter{"sort", Sort},
    NamedFilter{"unique", Unique},
    NamedFilter{"sum", Sum},
    NamedFilter{"min", Smallest},
    NamedFilter{"max", Largest},
    NamedFilter{"indent", Indent},
    NamedFilter{"escape", Escape},
    NamedFilter{"e", Escape},
    NamedFilter{"attr", ByAttribute},
    NamedFilter{"map", Map},
    NamedFilter{"select", Select},
    NamedFilter{"reject", Reject},
    NamedFilter{"selectattr", SelectAttribute},
    NamedFilter{"rejectattr", RejectAttribute},
};

}  // namespace

Result<Value> ApplyFilter(const std::string& name, const Value& input, const Arguments& arguments,
                          Budget* budget) {
  const uint64_t bytes = input.is_string() ? input.text().size() : input.size();
  RETURN_IF_ERROR(budget->Spend(arguments.line, 1 + bytes / 16));
  for (const NamedFilter& filter : kFilters) {
    if (filter.name != name) continue;
    ASSIGN_OR_RETURN(Value result, filter.function(input, arguments, budget));
    return budget->Keep(std::move(result), arguments.line);
  }
  return UnimplementedError("line " + std::to_string(arguments.line) + ": the filter '" + name +
                            "' is not supported");
}

}  // namespace corpusd::jinja
