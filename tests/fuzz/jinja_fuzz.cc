// Any bytes as a chat template: it parses and renders, or is refused with one sentence, in bounded
// time, memory and stack.
#include <string>
#include <string_view>

#include "engine/jinja/template.h"
#include "store/base/check.h"

namespace corpusd {
namespace {

// Few, so that a slow template costs a millisecond.
constexpr uint64_t kSteps = 20'000;

jinja::Value Message(const char* role, const char* content) {
  return jinja::Value::MakeDict({{"role", jinja::Value(role)}, {"content", jinja::Value(content)}});
}

void Check(std::string_view text) {
  const auto parsed = jinja::Template::Parse(text);
  if (!parsed.ok()) {
    CHECK(!parsed.status().message().empty());
    return;
  }
  const auto messages = jinja::Value::MakeList({Message("system", " Be brief. "),
                                                Message("user", "What \xc3\xa9\xff?"),
                                                Message("assistant", "That.")});
  const auto rendered = parsed->Render({{"messages", messages},
                                        {"add_generation_prompt", jinja::Value(true)},
                                        {"bos_token", jinja::Value("<s>")},
                                        {"tools", jinja::Value()}},
                                       kSteps);
  if (!rendered.ok()) CHECK(!rendered.status().message().empty());
}

}  // namespace
}  // namespace corpusd

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  corpusd::Check({reinterpret_cast<const char*>(data), size});
  return 0;
}
