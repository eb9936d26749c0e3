#include "engine/jinja/value.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "engine/jinja/text.h"

namespace corpusd::jinja {
namespace {

// Sizes of values that share parts double quickly; they stop counting here.
constexpr uint64_t kSizeCounted = uint64_t{1} << 40;

void Measure(const Value& part, uint32_t* depth, uint64_t* size) {
  *depth = std::max(*depth, part.depth() + 1);
  *size = std::min(*size + part.size(), kSizeCounted);
}

}  // namespace

Value Value::MakeList(std::vector<Value> items) {
  auto data = std::make_shared<ListData>(ListData{std::move(items), 1, 1});
  for (const Value& item : data->items) Measure(item, &data->depth, &data->size);
  Value value;
  value.data_ = std::shared_ptr<const ListData>(std::move(data));
  return value;
}

Value Value::MakeDict(std::vector<Entry> entries) {
  auto data = std::make_shared<DictData>(DictData{{}, 1, 1});
  for (Entry& entry : entries) {
    const auto same = std::find_if(data->entries.begin(), data->entries.end(),
                                   [&](const Entry& e) { return e.first == entry.first; });
    if (same != data->entries.end()) {
      same->second = std::move(entry.second);
    } else {
      data->entries.push_back(std::move(entry));
    }
  }
  for (const Entry& entry : data->entries) Measure(entry.second, &data->depth, &data->size);
  Value value;
  value.data_ = std::shared_ptr<const DictData>(std::move(data));
  return value;
}

const std::vector<Value>& Value::items() const {
  return std::get<std::shared_ptr<const ListData>>(data_)->items;
}

const std::vector<Entry>& Value::entries() const {
  return is_namespace() ? names()->entries
                        : std::get<std::shared_ptr<const DictData>>(data_)->entries;
}

uint32_t Value::depth() const {
  if (is_list()) return std::get<std::shared_ptr<const ListData>>(data_)->depth;
  if (is_dict()) return std::get<std::shared_ptr<const DictData>>(data_)->depth;
  return 1;
}

uint64_t Value::size() const {
  if (is_list()) return std::get<std::shared_ptr<const ListData>>(data_)->size;
  if (is_dict()) return std::get<std::shared_ptr<const DictData>>(data_)->size;
  return 1;
}

const Value* Value::Find(std::string_view key) const {
  for (const Entry& entry : entries()) {
    if (entry.first == key) return &entry.second;
  }
  return nullptr;
}

bool Value::IsTrue() const {
  if (is_undefined() || is_none()) return false;
  if (is_bool()) return boolean();
  if (is_int()) return integer() != 0;
  if (is_float()) return number() != 0;
  if (is_string()) return !text().empty();
  if (is_list()) return !items().empty();
  if (is_dict()) return !entries().empty();
  return true;
}

bool Value::Equals(const Value& other) const {
  if (is_number() && other.is_number()) {
    if (is_float() || other.is_float()) return number() == other.number();
    return integer() == other.integer();
  }
  if (data_.index() != other.data_.index()) return false;
  if (is_string()) return text() == other.text();
  if (is_list()) {
    return std::equal(items().begin(), items().end(), other.items().begin(), other.items().end(),
                      [](const Value& a, const Value& b) { return a.Equals(b); });
  }
  if (is_dict()) {
    if (entries().size() != other.entries().size()) return false;
    return std::all_of(entries().begin(), entries().end(), [&](const Entry& entry) {
      const Value* const match = other.Find(entry.first);
      return match != nullptr && entry.second.Equals(*match);
    });
  }
  if (is_function()) return &function() == &other.function();
  if (is_namespace()) return names() == other.names();
  return true;  // none, undefined
}

std::string Value::ToText() const {
  if (is_string()) return text();
  if (is_undefined()) return "";
  return Repr();
}

std::string Value::Repr() const {
  if (is_undefined()) return "Undefined";
  if (is_none()) return "None";
  if (is_bool()) return boolean() ? "True" : "False";
  if (is_int()) return std::to_string(integer());
  if (is_float()) return FloatText(number());
  if (is_string()) return QuotedText(text());
  std::string out;
  if (is_list()) {
    for (const Value& item : items()) out += (out.empty() ? "[" : ", ") + item.Repr();
    return out.empty() ? "[]" : out + "]";
  }
  if (is_dict()) {
    for (const Entry& entry : entries()) {
      out += (out.empty() ? "{" : ", ") + QuotedText(entry.first) + ": " + entry.second.Repr();
    }
    return out.empty() ? "{}" : out + "}";
  }
  return is_namespace() ? "<Namespace>" : "<function>";
}

std::string_view Value::KindName() const {
  if (is_undefined()) return "Undefined";
  if (is_none()) return "NoneType";
  if (is_bool()) return "bool";
  if (is_int()) return "int";
  if (is_float()) return "float";
  if (is_string()) return "str";
  if (is_list()) return "list";
  if (is_dict()) return "dict";
  return is_namespace() ? "Namespace" : "function";
}

std::string FloatText(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[40];
  const auto end =
      std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific);
  const std::string_view text(buffer, static_cast<size_t>(end.ptr - buffer));
  const size_t e = text.find('e');
  int exponent = 0;
  std::from_chars(text.data() + e + (text[e + 1] == '+' ? 2 : 1), text.data() + text.size(),
                  exponent);
  // Python leaves the plain notation below 1e-4 and from 1e16 on.
  if (exponent < -4 || exponent >= 16) return std::string(text);
  const auto plain = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::fixed);
  std::string out(buffer, plain.ptr);
  if (out.find('.') == std::string::npos) out += ".0";
  return out;
}

namespace {

void AppendLineBreak(const JsonStyle& style, int level, std::string* out) {
  if (style.indent < 0) return;
  out->push_back('\n');
  out->append(static_cast<size_t>(style.indent) * static_cast<size_t>(level), ' ');
}

// With an indent the default separator loses its space at the line's end.
std::string ItemSeparator(const JsonStyle& style) {
  return style.indent >= 0 && style.item_separator == ", " ? "," : style.item_separator;
}

}  // namespace

bool AppendJson(const Value& value, const JsonStyle& style, int level, std::string* out) {
  if (value.is_none()) return out->append("null"), true;
  if (value.is_bool()) return out->append(value.boolean() ? "true" : "false"), true;
  if (value.is_string()) return AppendJsonText(value.text(), style.ascii_only, out), true;
  if (value.is_int()) return out->append(std::to_string(value.integer())), true;
  if (value.is_float()) {
    const double number = value.number();
    const std::string text = std::isnan(number)   ? "NaN"
                             : std::isinf(number) ? (number < 0 ? "-Infinity" : "Infinity")
                                                  : FloatText(number);
    return out->append(text), true;
  }
  if (!value.is_list() && !value.is_dict()) return false;
  const bool list = value.is_list();
  if (value.size() == 1) return out->append(list ? "[]" : "{}"), true;
  std::vector<const Entry*> order;
  if (!list) {
    for (const Entry& entry : value.entries()) order.push_back(&entry);
    if (style.sort_keys) {
      std::stable_sort(order.begin(), order.end(),
                       [](const Entry* a, const Entry* b) { return a->first < b->first; });
    }
  }
  out->push_back(list ? '[' : '{');
  const size_t count = list ? value.items().size() : order.size();
  for (size_t i = 0; i < count; ++i) {
    if (i > 0) out->append(ItemSeparator(style));
    AppendLineBreak(style, level + 1, out);
    if (!list) {
      AppendJsonText(order[i]->first, style.ascii_only, out);
      out->append(style.key_separator);
    }
    const Value& item = list ? value.items()[i] : order[i]->second;
    if (!AppendJson(item, style, level + 1, out)) return false;
  }
  AppendLineBreak(style, level, out);
  out->push_back(list ? ']' : '}');
  return true;
}

}  // namespace corpusd::jinja
