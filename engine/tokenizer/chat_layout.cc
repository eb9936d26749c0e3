#include "engine/tokenizer/chat_layout.h"

#include "engine/jinja/template.h"

namespace corpusd {
namespace {

using jinja::Template;
using jinja::Value;

// Words that no template has, and that trimming and quoting leave alone.
constexpr const char* kPreambleMark = "PreambleStandsHereNow";
constexpr const char* kCorpusMark = "CorpusStandsHereNow";
constexpr const char* kQuestionMark = "QuestionStandsHereNow";
constexpr const char* kAnswerMark = "AnswerStandsHereNow";
constexpr const char* kNextMark = "SecondTurnStandsHereNow";
constexpr const char* kBetween = "\n\n";

// How a template takes what is said.
enum class Contents : uint8_t {
  kText,
  kParts,  // a list of {"type": "text", "text": ...}
};

class Renderer {
 public:
  Renderer(const ChatSource& source, Template parsed, Contents contents)
      : source_(source), template_(std::move(parsed)), contents_(contents) {}

  Value Message(const char* role, const std::string& text) const {
    Value content(text);
    if (contents_ == Contents::kParts) {
      content = Value::MakeList({Value::MakeDict({{"type", Value("text")}, {"text", content}})});
    }
    return Value::MakeDict({{"role", Value(role)}, {"content", std::move(content)}});
  }

  // As transformers calls it: tools and documents are there, but none.
  Result<std::string> Render(std::vector<Value> messages, bool prompt) const {
    std::vector<jinja::Entry> variables = {{"messages", Value::MakeList(std::move(messages))},
                                           {"add_generation_prompt", Value(prompt)},
                                           {"tools", Value()},
                                           {"documents", Value()}};
    if (!source_.bos_text.empty()) variables.emplace_back("bos_token", Value(source_.bos_text));
    if (!source_.eos_text.empty()) variables.emplace_back("eos_token", Value(source_.eos_text));
    return template_.Render(variables);
  }

 private:
  const ChatSource& source_;
  const Template template_;
  const Contents contents_;
};

// Cuts text at each mark, which must occur once and in this order. RETURNS one part more than
// marks, or nothing.
std::vector<std::string> CutAt(std::string text, const std::vector<std::string>& marks) {
  std::vector<std::string> parts;
  for (const std::string& mark : marks) {
    const size_t at = text.find(mark);
    if (at == std::string::npos || text.find(mark, at + 1) != std::string::npos) return {};
    parts.push_back(text.substr(0, at));
    text.erase(0, at + mark.size());
  }
  for (const std::string& mark : marks) {
    if (text.find(mark) != std::string::npos) return {};
  }
  parts.push_back(std::move(text));
  return parts;
}

Status Changes() { return UnimplementedError("it changes, repeats or drops what a user says"); }

Result<ChatLayout> FindLayout(const Renderer& renderer) {
  ChatLayout layout;
  layout.before_question = kBetween;
  const std::string user_text = std::string(kCorpusMark) + kBetween + kQuestionMark;
  const Value user = renderer.Message("user", user_text);
  ASSIGN_OR_RETURN(const std::string alone, renderer.Render({user}, true));
  auto parts = CutAt(alone, {kCorpusMark, kQuestionMark});
  if (parts.size() != 3 || parts[1] != kBetween) return Changes();
  layout.opening = parts[0];
  layout.closing = parts[2];

  const auto with_system = renderer.Render({renderer.Message("system", kPreambleMark), user}, true);
  if (with_system.ok()) parts = CutAt(*with_system, {kPreambleMark, kCorpusMark, kQuestionMark});
  if (!with_system.ok() || parts.size() != 4) {
    // No role for it: it opens what the user says.
    layout.before_preamble = layout.opening;
    layout.after_preamble = kBetween;
  } else if (parts[2] != kBetween || parts[3] != layout.closing) {
    return Changes();
  } else {
    layout.before_preamble = parts[0];
    layout.after_preamble = parts[1];
  }

  const auto answered = renderer.Render({user, renderer.Message("assistant", kAnswerMark)}, false);
  if (answered.ok()) parts = CutAt(*answered, {kCorpusMark, kQuestionMark, kAnswerMark});
  if (answered.ok() && parts.size() == 4) layout.turn_end = parts[3];

  const auto next = renderer.Render(
      {user, renderer.Message("assistant", kAnswerMark), renderer.Message("user", kNextMark)},
      true);
  if (next.ok()) parts = CutAt(*next, {kCorpusMark, kQuestionMark, kAnswerMark, kNextMark});
  // A template of one turn gets the next one as it would get the first.
  layout.next_turn = next.ok() && parts.size() == 5 ? parts[3] : layout.turn_end + layout.opening;
  return layout;
}

}  // namespace

Result<ChatLayout> FindChatLayout(const ChatSource& source) {
  const std::string where = source.where + ": the chat template";
  auto parsed = Template::Parse(source.text);
  if (!parsed.ok()) return parsed.status().WithContext(where);
  auto layout = FindLayout(Renderer(source, *parsed, Contents::kText));
  if (layout.ok()) return layout;
  auto of_parts = FindLayout(Renderer(source, *parsed, Contents::kParts));
  if (of_parts.ok()) return of_parts;
  return layout.status().WithContext(where);
}

ChatLayout PlainTextLayout() {
  ChatLayout layout;
  layout.after_preamble = kBetween;
  layout.before_question = "\n\nQuestion: ";
  layout.closing = "\nAnswer:";
  layout.next_turn = layout.before_question;
  layout.turn_end = "\n";
  return layout;
}

}  // namespace corpusd
