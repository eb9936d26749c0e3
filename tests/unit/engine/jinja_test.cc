#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "engine/jinja/template.h"

namespace corpusd::jinja {
namespace {

Value FromJson(const nlohmann::ordered_json& json) {
  if (json.is_boolean()) return json.get<bool>();
  if (json.is_number_integer()) return json.get<int64_t>();
  if (json.is_number_float()) return json.get<double>();
  if (json.is_string()) return json.get<std::string>();
  if (json.is_array()) {
    std::vector<Value> items;
    for (const auto& item : json) items.push_back(FromJson(item));
    return Value::MakeList(std::move(items));
  }
  if (!json.is_object()) return {};
  std::vector<Entry> entries;
  for (const auto& [key, item] : json.items()) entries.emplace_back(key, FromJson(item));
  return Value::MakeDict(std::move(entries));
}

Result<std::string> RenderText(std::string_view source, const std::vector<Entry>& variables = {},
                               uint64_t steps = Template::kStepsMax) {
  ASSIGN_OR_RETURN(const Template parsed, Template::Parse(source));
  return parsed.Render(variables, steps);
}

struct Tally {
  size_t cases = 0, wrong = 0, unsupported = 0;
};

// Every case of a file that make_chat_templates.py wrote: the same text, or an error where Jinja
// has one.
Tally CheckFile(const std::string& path) {
  std::ifstream file(path);
  Tally tally;
  for (std::string line; std::getline(file, line);) {
    const auto json = nlohmann::ordered_json::parse(line);
    std::vector<Entry> variables;
    for (const auto& [key, value] : json["variables"].items()) {
      variables.emplace_back(key, FromJson(value));
    }
    const auto source = json["template"].get<std::string>();
    const auto text = RenderText(source, variables);
    ++tally.cases;
    const std::string name = json.contains("name") ? json["name"].get<std::string>() : source;
    if (!text.ok() && text.status().code() == StatusCode::kUnimplemented && json.contains("name")) {
      ++tally.unsupported;
      std::cout << name << ": " << text.status().message() << "\n";
      continue;
    }
    const bool right =
        json.contains("text") ? text.ok() && *text == json["text"].get<std::string>() : !text.ok();
    if (right) continue;
    ++tally.wrong;
    ADD_FAILURE() << name << "\n  is:     " << (text.ok() ? *text : text.status().ToString())
                  << "\n  wanted: "
                  << (json.contains("text") ? json["text"].get<std::string>() : "an error");
  }
  return tally;
}

TEST(Jinja, PrintsWhatTheReferencePrints) {
  const Tally tally = CheckFile("tests/golden/chat_templates.jsonl");
  EXPECT_GT(tally.cases, 250u);
}

// Files of published templates: CORPUSD_CHAT_TEMPLATES=FILE, see make_chat_templates.py.
TEST(Jinja, PublishedTemplates) {
  const char* const path = std::getenv("CORPUSD_CHAT_TEMPLATES");
  if (path == nullptr) GTEST_SKIP() << "CORPUSD_CHAT_TEMPLATES is not set";
  const Tally tally = CheckFile(path);
  std::cout << tally.cases << " cases, " << tally.wrong << " wrong, " << tally.unsupported
            << " not supported\n";
  EXPECT_GT(tally.cases, 0u);
}

TEST(Jinja, ErrorsNameLineAndConstruct) {
  const auto message = [](std::string_view source) {
    return std::string(RenderText(source).status().message());
  };
  EXPECT_EQ(message("a\n{% include 'x' %}"), "line 2: the tag 'include' is not supported");
  EXPECT_EQ(message("\n\n{{ 'x' | shout }}"), "line 3: the filter 'shout' is not supported");
  EXPECT_EQ(message("{{ 1 is prime }}"), "line 1: the test 'prime' is not supported");
  EXPECT_EQ(message("{{ x.y }}"), "line 1: 'x' is undefined");
  EXPECT_EQ(message("{% if 1 %}\n"), "line 1: the template ends where 'endif' is missing");
  EXPECT_EQ(message("{{ 'abc }}"), "line 1: a string does not end");
  EXPECT_EQ(message("{{ 1 +\n }}"), "line 2: expected an expression, found the tag's end");
  EXPECT_EQ(message("{{ [1)] }}"), "line 1: ')' closes nothing");
  EXPECT_EQ(message("{{ '1' + 2 }}"), "line 1: '+' does not take str and int");
  EXPECT_EQ(message("{{ raise_exception('only users') }}"),
            "line 1: the template refuses the conversation: only users");
}

TEST(Jinja, LimitsHold) {
  const auto code = [](const std::string& source) { return RenderText(source).status().code(); };
  const auto exhausted = StatusCode::kResourceExhausted;
  EXPECT_EQ(code("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"),
            exhausted);
  EXPECT_EQ(code("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"), exhausted);
  EXPECT_EQ(code("{{ 'x' * 99999999999 }}"), exhausted);
  EXPECT_EQ(code("{{ [1] * 99999999999 }}"), exhausted);
  // Values that share parts: 2^40 items in a few bytes.
  EXPECT_EQ(code("{% set n = namespace(x=[1]) %}{% for i in range(40) %}"
                 "{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}"),
            exhausted);
  // A chain deeper than the stack, if it could be destroyed at all.
  EXPECT_EQ(code("{% set n = namespace(x=[]) %}{% for i in range(99999) %}"
                 "{% set n.x = [n.x] %}{% endfor %}"),
            exhausted);
  EXPECT_EQ(code("{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}"), exhausted);
  EXPECT_EQ(code("{{ " + std::string(5000, '(') + "1" + std::string(5000, ')') + " }}"),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(code("{{ 1" + std::string(5000, '+') + "1 }}"), StatusCode::kInvalidArgument);
  std::string sum = "{{ 1";
  for (int i = 0; i < 5000; ++i) sum += " + 1";
  EXPECT_EQ(code(sum + " }}"), StatusCode::kInvalidArgument);
  std::string nested;
  for (int i = 0; i < 5000; ++i) nested += "{% if 1 %}";
  EXPECT_EQ(code(nested), StatusCode::kInvalidArgument);
  EXPECT_EQ(Template::Parse(std::string(2 << 20, 'x')).status().code(),
            StatusCode::kInvalidArgument);
  // A namespace that holds itself neither leaks nor is printed for ever.
  EXPECT_EQ(*RenderText("{% set n = namespace() %}{% set n.n = n %}{{ n.n.n == n }}"), "True");
}

}  // namespace
}  // namespace corpusd::jinja
