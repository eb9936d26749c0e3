// Jinja's tests by name ("x is NAME"), and what filters, tests and functions read their arguments
// with.
#include <algorithm>
#include <array>

#include "engine/jinja/functions.h"
#include "engine/jinja/text.h"

namespace corpusd::jinja {
namespace {

struct NamedCompare {
  std::string_view name, op;
};
constexpr std::array kCompares = {
    NamedCompare{"eq", "=="},         NamedCompare{"==", "=="}, NamedCompare{"equalto", "=="},
    NamedCompare{"ne", "!="},         NamedCompare{"!=", "!="}, NamedCompare{"lt", "<"},
    NamedCompare{"lessthan", "<"},    NamedCompare{"<", "<"},   NamedCompare{"le", "<="},
    NamedCompare{"<=", "<="},         NamedCompare{"gt", ">"},  NamedCompare{">", ">"},
    NamedCompare{"greaterthan", ">"}, NamedCompare{"ge", ">="}, NamedCompare{">=", ">="},
    NamedCompare{"in", "in"},
};

struct NamedTest {
  std::string_view name;
  bool (*holds)(const Value& value);
};
constexpr std::array kTests = {
    NamedTest{"defined", [](const Value& v) { return !v.is_undefined(); }},
    NamedTest{"undefined", [](const Value& v) { return v.is_undefined(); }},
    NamedTest{"none", [](const Value& v) { return v.is_none(); }},
    NamedTest{"string", [](const Value& v) { return v.is_string(); }},
    NamedTest{"mapping", [](const Value& v) { return v.is_dict(); }},
    // Undefined values iterate over nothing.
    NamedTest{"iterable",
              [](const Value& v) {
                return v.is_string() || v.is_list() || v.is_dict() || v.is_undefined();
              }},
    NamedTest{"sequence",
              [](const Value& v) {
                return v.is_string() || v.is_list() || v.is_dict() || v.is_undefined();
              }},
    NamedTest{"number", [](const Value& v) { return v.is_number(); }},
    NamedTest{"integer", [](const Value& v) { return v.is_int(); }},
    NamedTest{"float", [](const Value& v) { return v.is_float(); }},
    NamedTest{"boolean", [](const Value& v) { return v.is_bool(); }},
    NamedTest{"true", [](const Value& v) { return v.is_bool() && v.boolean(); }},
    NamedTest{"false", [](const Value& v) { return v.is_bool() && !v.boolean(); }},
    NamedTest{"callable", [](const Value& v) { return v.is_function(); }},
    NamedTest{"lower",
              [](const Value& v) {
                const std::string text = v.ToText();
                return Lower(text) == text && Upper(text) != text;
              }},
    NamedTest{"upper",
              [](const Value& v) {
                const std::string text = v.ToText();
                return Upper(text) == text && Lower(text) != text;
              }},
};

Result<bool> Divides(const std::string& name, const Value& input, const Arguments& arguments) {
  int64_t divisor = 2;
  if (name == "divisibleby") {
    ASSIGN_OR_RETURN(divisor, arguments.IntegerOr(0, "num", 0));
  }
  if (!(input.is_int() || input.is_bool()) || divisor == 0) {
    return TemplateError(arguments.line, "the test '" + name + "' needs whole numbers");
  }
  const bool divides = divisor == -1 || input.integer() % divisor == 0;
  return name == "odd" ? !divides : divides;
}

}  // namespace

Result<bool> ApplyTest(const std::string& name, const Value& input, const Arguments& arguments,
                       Budget* budget) {
  RETURN_IF_ERROR(budget->Spend(arguments.line, 1));
  for (const NamedTest& test : kTests) {
    if (test.name == name) return test.holds(input);
  }
  if (name == "odd" || name == "even" || name == "divisibleby") {
    return Divides(name, input, arguments);
  }
  const Value* const other = arguments.Get(0, "other");
  if (name == "sameas" && other != nullptr) {
    return input.KindName() == other->KindName() && input.Equals(*other);
  }
  for (const NamedCompare& compare : kCompares) {
    if (compare.name != name) continue;
    if (other == nullptr) {
      return TemplateError(arguments.line, "the test '" + name + "' needs a value");
    }
    return ApplyCompare(compare.op, input, *other, arguments.line, budget);
  }
  return UnimplementedError("line " + std::to_string(arguments.line) + ": the test '" + name +
                            "' is not supported");
}

const Value* Arguments::Get(size_t place, std::string_view name) const {
  if (place < values.size()) return &values[place];
  for (const Entry& entry : named) {
    if (entry.first == name) return &entry.second;
  }
  return nullptr;
}

Result<int64_t> Arguments::IntegerOr(size_t place, std::string_view name, int64_t otherwise) const {
  const Value* const value = Get(place, name);
  if (value == nullptr || value->is_none()) return otherwise;
  if (value->is_int() || value->is_bool()) return value->integer();
  return TemplateError(line, "expected a whole number, found " + std::string(value->KindName()));
}

Result<std::string> Arguments::TextOr(size_t place, std::string_view name,
                                      std::string otherwise) const {
  const Value* const value = Get(place, name);
  if (value == nullptr) return otherwise;
  if (value->is_string()) return value->text();
  return TemplateError(line, "expected text, found " + std::string(value->KindName()));
}

bool Arguments::FlagOr(size_t place, std::string_view name, bool otherwise) const {
  const Value* const value = Get(place, name);
  return value == nullptr ? otherwise : value->IsTrue();
}

Arguments Arguments::WithoutFirst() const {
  Arguments rest = *this;
  if (!rest.values.empty()) rest.values.erase(rest.values.begin());
  return rest;
}

}  // namespace corpusd::jinja
