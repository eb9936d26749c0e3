// engine/jinja/functions.h -- what templates may call: operators, filters, tests, methods and
// functions, by Jinja's and Python's names. Pure but for the budget; one thread. Errors are one
// sentence with the line and the name; kUnimplemented for a name that is not known.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/jinja/budget.h"
#include "engine/jinja/syntax.h"
#include "engine/jinja/value.h"
#include "store/base/result.h"

namespace corpusd::jinja {

// A macro, a function of this file (neither macro nor self), or a method of self.
struct Function {
  std::string name;
  const Statement* macro = nullptr;
  Value self;
};

struct Arguments {
  std::vector<Value> values;
  std::vector<Entry> named;
  uint32_t line = 0;

  // The argument at a place or of a name; null if it is not given.
  const Value* Get(size_t place, std::string_view name) const;
  // The same as a whole number, a text or a truth; kInvalidArgument if it is of another kind.
  Result<int64_t> IntegerOr(size_t place, std::string_view name, int64_t otherwise) const;
  Result<std::string> TextOr(size_t place, std::string_view name, std::string otherwise) const;
  bool FlagOr(size_t place, std::string_view name, bool otherwise) const;
  // Without the first of the places.
  Arguments WithoutFirst() const;
};

Result<Value> ApplyBinary(std::string_view op, const Value& left, const Value& right, uint32_t line,
                          Budget* budget);
Result<bool> ApplyCompare(std::string_view op, const Value& left, const Value& right, uint32_t line,
                          Budget* budget);
// value[key]: an item, a character, an entry; undefined if there is none.
Result<Value> GetItem(const Value& value, const Value& key, uint32_t line, Budget* budget);
// value[begin:end:step]; each bound is none for Python's default.
Result<Value> GetSlice(const Value& value, const Value& begin, const Value& end, const Value& step,
                       uint32_t line, Budget* budget);
// The items of a list, the characters of a string, the keys of a dictionary.
Result<std::vector<Value>> Iterate(const Value& value, uint32_t line, Budget* budget);

Result<Value> ApplyFilter(const std::string& name, const Value& input, const Arguments& arguments,
                          Budget* budget);
Result<bool> ApplyTest(const std::string& name, const Value& input, const Arguments& arguments,
                       Budget* budget);
bool HasMethod(const Value& self, std::string_view name);
Result<Value> CallMethod(const Value& self, const std::string& name, const Arguments& arguments,
                         Budget* budget);
// range, dict, raise_exception, strftime_now.
bool IsFunction(std::string_view name);
Result<Value> CallFunction(const std::string& name, const Arguments& arguments, Budget* budget);

}  // namespace corpusd::jinja
