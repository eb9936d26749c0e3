#include <algorithm>
#include <cmath>

#include "engine/jinja/functions.h"
#include "engine/jinja/text.h"

namespace corpusd::jinja {
namespace {

Status WrongKinds(std::string_view op, const Value& left, const Value& right, uint32_t line) {
  for (const Value* const side : {&left, &right}) {
    if (side->is_undefined()) return TemplateError(line, side->undefined_text());
  }
  return TemplateError(line, "'" + std::string(op) + "' does not take " +
                                 std::string(left.KindName()) + " and " +
                                 std::string(right.KindName()));
}

// Python rounds quotients down.
int64_t FloorDivide(int64_t a, int64_t b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }

Result<Value> ApplyToIntegers(std::string_view op, int64_t a, int64_t b, uint32_t line) {
  int64_t result = 0;
  bool overflow = false;
  if (op == "+") overflow = __builtin_add_overflow(a, b, &result);
  if (op == "-") overflow = __builtin_sub_overflow(a, b, &result);
  if (op == "*") overflow = __builtin_mul_overflow(a, b, &result);
  if (op == "//" || op == "%" || op == "/") {
    if (b == 0) return TemplateError(line, "division by zero");
    if (op == "/") return Value(static_cast<double>(a) / static_cast<double>(b));
    overflow = b == -1 && a == INT64_MIN;
    if (!overflow) result = op == "//" ? FloorDivide(a, b) : a - FloorDivide(a, b) * b;
  }
  if (op == "**") {
    if (b < 0) return Value(std::pow(static_cast<double>(a), static_cast<double>(b)));
    result = 1;
    // Beyond 63 doublings only 0, 1 and -1 stay in range.
    const int64_t turns = a >= -1 && a <= 1 ? b % 2 + (b > 1 ? 2 : 0) : b;
    for (int64_t i = 0; i < turns && !overflow; ++i) {
      overflow = __builtin_mul_overflow(result, a, &result);
    }
  }
  if (overflow) return TemplateError(line, "a number is beyond 64 bits");
  return Value(result);
}

Result<Value> ApplyToReals(std::string_view op, double a, double b, uint32_t line) {
  if ((op == "/" || op == "//" || op == "%") && b == 0) {
    return TemplateError(line, "division by zero");
  }
  if (op == "+") return Value(a + b);
  if (op == "-") return Value(a - b);
  if (op == "*") return Value(a * b);
  if (op == "/") return Value(a / b);
  if (op == "//") return Value(std::floor(a / b));
  if (op == "%") return Value(a - std::floor(a / b) * b);
  return Value(std::pow(a, b));
}

// A text or list as often as a number says.
Result<Value> Repeat(const Value& what, int64_t times, uint32_t line, Budget* budget) {
  const uint64_t count = static_cast<uint64_t>(std::max<int64_t>(times, 0));
  const uint64_t each = what.is_string() ? what.text().size() : what.items().size();
  if (each > 0 && count > Budget::kStringBytesMax / each) {
    return ResourceExhaustedError("line " + std::to_string(line) +
                                  ": the template makes too large a value");
  }
  if (what.is_string()) {
    std::string text;
    for (uint64_t i = 0; each > 0 && i < count; ++i) text += what.text();
    return budget->Keep(Value(std::move(text)), line);
  }
  RETURN_IF_ERROR(budget->Spend(line, each * count));
  std::vector<Value> items;
  for (uint64_t i = 0; each > 0 && i < count; ++i) {
    items.insert(items.end(), what.items().begin(), what.items().end());
  }
  return budget->Keep(Value::MakeList(std::move(items)), line);
}

// Below 0, 0 or above 0, as memcmp. Only of kinds that Python orders.
Result<int> Order(std::string_view op, const Value& left, const Value& right, uint32_t line) {
  if (left.is_number() && right.is_number()) {
    if (left.is_float() || right.is_float()) {
      return left.number() < right.number() ? -1 : left.number() > right.number() ? 1 : 0;
    }
    return left.integer() < right.integer() ? -1 : left.integer() > right.integer() ? 1 : 0;
  }
  if (left.is_string() && right.is_string()) {
    const int order = left.text().compare(right.text());  // UTF-8 keeps the code points' order
    return order < 0 ? -1 : order > 0 ? 1 : 0;
  }
  if (!left.is_list() || !right.is_list()) return WrongKinds(op, left, right, line);
  const size_t common = std::min(left.items().size(), right.items().size());
  for (size_t i = 0; i < common; ++i) {
    if (left.items()[i].Equals(right.items()[i])) continue;
    return Order(op, left.items()[i], right.items()[i], line);
  }
  return left.items().size() < right.items().size()   ? -1
         : left.items().size() > right.items().size() ? 1
                                                      : 0;
}

uint64_t CompareCost(const Value& value) {
  return value.is_string() ? 1 + value.text().size() / 64 : value.size();
}

Result<bool> Contains(const Value& whole, const Value& part, uint32_t line, Budget* budget) {
  if (whole.is_undefined()) return false;
  if (whole.is_string()) {
    if (!part.is_string()) return WrongKinds("in", part, whole, line);
    RETURN_IF_ERROR(budget->Spend(line, 1 + whole.text().size() / 16));
    return whole.text().find(part.text()) != std::string::npos;
  }
  if (whole.is_dict() || whole.is_namespace()) {
    RETURN_IF_ERROR(budget->Spend(line, 1 + whole.entries().size() / 8));
    return part.is_string() && whole.Find(part.text()) != nullptr;
  }
  if (!whole.is_list()) return WrongKinds("in", part, whole, line);
  RETURN_IF_ERROR(budget->Spend(line, whole.size()));
  return std::any_of(whole.items().begin(), whole.items().end(),
                     [&](const Value& item) { return item.Equals(part); });
}

}  // namespace

Result<Value> ApplyBinary(std::string_view op, const Value& left, const Value& right, uint32_t line,
                          Budget* budget) {
  if (op == "~") return budget->Keep(Value(left.ToText() + right.ToText()), line);
  if (left.is_number() && right.is_number()) {
    if (left.is_float() || right.is_float()) {
      return ApplyToReals(op, left.number(), right.number(), line);
    }
    return ApplyToIntegers(op, left.integer(), right.integer(), line);
  }
  if (op == "+" && left.is_string() && right.is_string()) {
    return budget->Keep(Value(left.text() + right.text()), line);
  }
  if (op == "+" && left.is_list() && right.is_list()) {
    std::vector<Value> items = left.items();
    items.insert(items.end(), right.items().begin(), right.items().end());
    return budget->Keep(Value::MakeList(std::move(items)), line);
  }
  const auto repeats = [](const Value& what, const Value& times) {
    return (what.is_string() || what.is_list()) && (times.is_int() || times.is_bool());
  };
  if (op == "*" && repeats(left, right)) return Repeat(left, right.integer(), line, budget);
  if (op == "*" && repeats(right, left)) return Repeat(right, left.integer(), line, budget);
  return WrongKinds(op, left, right, line);
}

Result<bool> ApplyCompare(std::string_view op, const Value& left, const Value& right, uint32_t line,
                          Budget* budget) {
  if (op == "in") return Contains(right, left, line, budget);
  if (op == "not in") {
    ASSIGN_OR_RETURN(const bool contains, Contains(right, left, line, budget));
    return !contains;
  }
  RETURN_IF_ERROR(budget->Spend(line, std::min(CompareCost(left), CompareCost(right))));
  if (op == "==") return left.Equals(right);
  if (op == "!=") return !left.Equals(right);
  ASSIGN_OR_RETURN(const int order, Order(op, left, right, line));
  if (op == "<") return order < 0;
  if (op == "<=") return order <= 0;
  return op == ">" ? order > 0 : order >= 0;
}

Result<Value> GetItem(const Value& value, const Value& key, uint32_t line, Budget* budget) {
  if (value.is_undefined()) return TemplateError(line, value.undefined_text());
  if (value.is_dict() || value.is_namespace()) {
    if (!key.is_string()) return Value::MakeUndefined("a dictionary has no key " + key.Repr());
    RETURN_IF_ERROR(budget->Spend(line, value.entries().size() / 8));
    if (const Value* const found = value.Find(key.text())) return *found;
    return Value::MakeUndefined("a dictionary has no key " + QuotedText(key.text().substr(0, 80)));
  }
  if ((value.is_list() || value.is_string()) && (key.is_int() || key.is_bool())) {
    std::vector<std::string_view> characters;
    if (value.is_string()) {
      RETURN_IF_ERROR(budget->Spend(line, value.text().size() / 16));
      characters = Characters(value.text());
    }
    const auto size =
        static_cast<int64_t>(value.is_list() ? value.items().size() : characters.size());
    const int64_t index = key.integer() < 0 ? key.integer() + size : key.integer();
    if (index < 0 || index >= size) {
      return Value::MakeUndefined("index " + std::to_string(key.integer()) + " of " +
                                  std::to_string(size) + " is undefined");
    }
    if (value.is_list()) return value.items()[static_cast<size_t>(index)];
    return Value(characters[static_cast<size_t>(index)]);
  }
  return Value::MakeUndefined(std::string(value.KindName()) + " has no " + key.Repr());
}

Result<Value> GetSlice(const Value& value, const Value& begin, const Value& end, const Value& step,
                       uint32_t line, Budget* budget) {
  if (!value.is_list() && !value.is_string()) {
    if (value.is_undefined()) return TemplateError(line, value.undefined_text());
    return TemplateError(line, "a slice of " + std::string(value.KindName()));
  }
  for (const Value* const bound : {&begin, &end, &step}) {
    if (!bound->is_none() && !bound->is_int() && !bound->is_bool()) {
      return TemplateError(line, "a slice's bound is " + std::string(bound->KindName()));
    }
  }
  const auto characters =
      value.is_string() ? Characters(value.text()) : std::vector<std::string_view>();
  RETURN_IF_ERROR(budget->Spend(line, 1 + characters.size() / 16));
  const auto size =
      static_cast<int64_t>(value.is_list() ? value.items().size() : characters.size());
  const int64_t stride = step.is_none() ? 1 : step.integer();
  if (stride == 0) return TemplateError(line, "a slice's step is 0");
  const auto place = [&](const Value& bound, int64_t otherwise) {
    if (bound.is_none()) return otherwise;
    const int64_t at = bound.integer() < 0 ? bound.integer() + size : bound.integer();
    return stride > 0 ? std::clamp<int64_t>(at, 0, size) : std::clamp<int64_t>(at, -1, size - 1);
  };
  const int64_t first = place(begin, stride > 0 ? 0 : size - 1);
  const int64_t last = place(end, stride > 0 ? size : -1);
  std::vector<Value> items;
  std::string text;
  for (int64_t i = first; stride > 0 ? i < last : i > last;) {
    const auto at = static_cast<size_t>(i);
    if (value.is_list()) {
      items.push_back(value.items()[at]);
    } else {
      text += characters[at];
    }
    if (__builtin_add_overflow(i, stride, &i)) break;
  }
  return budget->Keep(value.is_list() ? Value::MakeList(std::move(items)) : Value(std::move(text)),
                      line);
}

Result<std::vector<Value>> Iterate(const Value& value, uint32_t line, Budget* budget) {
  std::vector<Value> items;
  if (value.is_undefined()) return items;
  if (value.is_list()) {
    items = value.items();
  } else if (value.is_dict()) {
    for (const Entry& entry : value.entries()) items.emplace_back(entry.first);
  } else if (value.is_string()) {
    RETURN_IF_ERROR(budget->Spend(line, value.text().size()));
    for (const std::string_view character : Characters(value.text())) items.emplace_back(character);
  } else {
    return TemplateError(line, std::string(value.KindName()) + " cannot be iterated over");
  }
  RETURN_IF_ERROR(budget->Spend(line, items.size()));
  return items;
}

}  // namespace corpusd::jinja
