// engine/jinja/value.h -- the values that chat templates compute with: Python's, as far as
// templates see them. Lists, dictionaries and strings are shared and immutable; only a namespace
// changes, and it belongs to the evaluation that made it. Values know how deep and how large they
// are, so that printing, comparing and destroying them is bounded. One thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace corpusd::jinja {

class Value;
struct Function;
using Entry = std::pair<std::string, Value>;

struct Undefined {
  std::string what;  // "'x' is undefined", for errors
};
struct None {};

struct ListData;
struct DictData;

// Names and values that a template may change. Owned by the evaluation.
struct Namespace {
  std::vector<Entry> entries;
};

class Value {
 public:
  // Beyond these a template is refused (Evaluator checks when it makes a value).
  static constexpr uint32_t kDepthMax = 64;
  static constexpr uint64_t kSizeMax = uint64_t{1} << 20;

  Value() : data_(None{}) {}
  Value(bool value) : data_(value) {}     // NOLINT: implicit, as are all that follow
  Value(int64_t value) : data_(value) {}  // NOLINT
  Value(double value) : data_(value) {}   // NOLINT
  Value(std::string text)                 // NOLINT
      : data_(std::make_shared<const std::string>(std::move(text))) {}
  Value(std::string_view text) : Value(std::string(text)) {}                       // NOLINT
  Value(const char* text) : Value(std::string(text)) {}                            // NOLINT
  Value(std::shared_ptr<const Function> function) : data_(std::move(function)) {}  // NOLINT
  Value(Namespace* names) : data_(names) {}                                        // NOLINT
  static Value MakeUndefined(std::string what) {
    Value value;
    value.data_ = Undefined{std::move(what)};
    return value;
  }
  static Value MakeList(std::vector<Value> items);
  // Of equal keys the last counts, at the place of the first.
  static Value MakeDict(std::vector<Entry> entries);

  bool is_undefined() const { return Is<Undefined>(); }
  bool is_none() const { return Is<None>(); }
  bool is_bool() const { return Is<bool>(); }
  bool is_int() const { return Is<int64_t>(); }  // not a bool
  bool is_float() const { return Is<double>(); }
  bool is_number() const { return is_bool() || is_int() || is_float(); }
  bool is_string() const { return Is<std::shared_ptr<const std::string>>(); }
  bool is_list() const { return Is<std::shared_ptr<const ListData>>(); }
  bool is_dict() const { return Is<std::shared_ptr<const DictData>>(); }
  bool is_function() const { return Is<std::shared_ptr<const Function>>(); }
  bool is_namespace() const { return Is<Namespace*>(); }

  // REQUIRES: the kind.
  const std::string& undefined_text() const { return std::get<Undefined>(data_).what; }
  bool boolean() const { return std::get<bool>(data_); }
  int64_t integer() const { return is_bool() ? (boolean() ? 1 : 0) : std::get<int64_t>(data_); }
  double number() const {
    return is_float() ? std::get<double>(data_) : static_cast<double>(integer());
  }
  const std::string& text() const { return *std::get<std::shared_ptr<const std::string>>(data_); }
  const std::vector<Value>& items() const;
  const std::vector<Entry>& entries() const;  // a dictionary's or a namespace's
  const Function& function() const { return *std::get<std::shared_ptr<const Function>>(data_); }
  Namespace* names() const { return std::get<Namespace*>(data_); }

  // The entry of a dictionary or namespace, or null.
  const Value* Find(std::string_view key) const;
  bool IsTrue() const;
  // Python's ==: numbers by value, whatever their kind.
  bool Equals(const Value& other) const;
  // As Python's str() and repr().
  std::string ToText() const;
  std::string Repr() const;
  std::string_view KindName() const;  // Python's, for errors: "str", "list"

  uint32_t depth() const;  // 1 for a plain value
  uint64_t size() const;   // values in it, itself included; what they share counts each time

 private:
  template <typename T>
  bool Is() const {
    return std::holds_alternative<T>(data_);
  }

  std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const std::string>,
               std::shared_ptr<const ListData>, std::shared_ptr<const DictData>,
               std::shared_ptr<const Function>, Namespace*>
      data_;
};

struct ListData {
  std::vector<Value> items;
  uint32_t depth;
  uint64_t size;
};
struct DictData {
  std::vector<Entry> entries;
  uint32_t depth;
  uint64_t size;
};

// A number as Python's repr() prints it: the fewest digits that read back the same.
std::string FloatText(double value);

struct JsonStyle {
  int indent = -1;  // below 0: all in one line
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool ascii_only = false;
  bool sort_keys = false;
};
// Appends value as Python's json.dumps writes it. RETURNS false for values that JSON does not have.
bool AppendJson(const Value& value, const JsonStyle& style, int level, std::string* out);

}  // namespace corpusd::jinja
