#include "engine/tokenizer/chat_template.h"

#include <algorithm>

#include "engine/model/gguf.h"

namespace corpusd {
namespace {

constexpr std::string_view kMessageStart = "<|im_start|>";
constexpr std::string_view kMessageEnd = "<|im_end|>";
constexpr const char* kBeforeQuestion = "\n\n";

// One spelling for the same template: no white space outside of string literals, single quotes,
// newlines inside of literals as they are instead of escaped.
std::string Canonical(std::string_view text) {
  std::string result;
  char quote = 0;  // the open literal's
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quote == 0) {
      if (c == ' ' || c == '\n' || c == '\t' || c == '\r') continue;
      if (c == '\'' || c == '"') quote = c;
      result.push_back(c == '"' ? '\'' : c);
    } else if (c == quote) {
      quote = 0;
      result.push_back('\'');
    } else if (c == '\\' && i + 1 < text.size()) {
      ++i;
      if (text[i] == 'n') {
        result.push_back('\n');
      } else {
        result.push_back(text[i]);
      }
    } else {
      result.push_back(c);
    }
  }
  return result;
}

bool Skip(std::string_view* text, std::string_view expected) {
  if (!text->starts_with(expected)) return false;
  text->remove_prefix(expected.size());
  return true;
}

}  // namespace

Result<std::string> ParseChatMlTemplate(std::string_view text) {
  const Status refusal = UnimplementedError(
      "the chat template is not ChatML (<|im_start|>role ... <|im_end|>), the only one supported");
  const std::string canonical = Canonical(text);
  std::string_view rest = canonical;
  std::string system_text;
  if (!Skip(&rest, "{%formessageinmessages%}")) return refusal;
  if (Skip(&rest, "{%ifloop.firstandmessages[0]['role']!='system'%}{{'<|im_start|>system\n")) {
    const size_t end = rest.find("<|im_end|>\n'}}{%endif%}");
    if (end == std::string_view::npos) return refusal;
    system_text = rest.substr(0, end);
    // A text with quotes or braces is more likely code between two literals.
    if (system_text.find_first_of("'{}") != std::string::npos) return refusal;
    rest.remove_prefix(end + std::string_view("<|im_end|>\n'}}{%endif%}").size());
  }
  if (!Skip(&rest,
            "{{'<|im_start|>'+message['role']+'\n'+message['content']+'<|im_end|>'+'\n'}}") &&
      !Skip(&rest, "{{'<|im_start|>'+message['role']+'\n'+message['content']+'<|im_end|>\n'}}")) {
    return refusal;
  }
  if (!Skip(&rest, "{%endfor%}") ||
      !Skip(&rest, "{%ifadd_generation_prompt%}{{'<|im_start|>assistant\n'}}{%endif%}") ||
      !rest.empty()) {
    return refusal;
  }
  return system_text;
}

Result<ChatTemplate> ChatTemplate::FromGguf(const GgufFile& file, const Tokenizer& tokenizer) {
  std::string text;
  constexpr std::string_view kKey = "tokenizer.chat_template";
  if (file.Has(kKey)) {
    ASSIGN_OR_RETURN(text, file.GetString(kKey));
  }
  return FromText(text, file.path(), tokenizer);
}

Result<ChatTemplate> ChatTemplate::FromText(const std::string& text, const std::string& where,
                                            const Tokenizer& tokenizer) {
  ChatTemplate chat(tokenizer);
  if (!text.empty()) {
    auto system_text = ParseChatMlTemplate(text);
    if (!system_text.ok()) return system_text.status().WithContext(where);
    chat.default_system_text_ = *system_text;
  }
  const auto start = tokenizer.FindSpecial(kMessageStart);
  const auto end = tokenizer.FindSpecial(kMessageEnd);
  if (!start || !end) {
    return InvalidArgumentError(where + ": the vocabulary lacks the special tokens " +
                                std::string(kMessageStart) + " and " + std::string(kMessageEnd) +
                                " that ChatML needs");
  }
  chat.message_start_ = *start;
  chat.message_end_ = *end;
  chat.stops_ = {*end};
  if (tokenizer.end_token()) chat.stops_.push_back(*tokenizer.end_token());
  if (const auto text_end = tokenizer.FindSpecial("<|endoftext|>"))
    chat.stops_.push_back(*text_end);
  return chat;
}

std::vector<TokenId> ChatTemplate::CorpusPrefix(std::string_view system_text) const {
  if (system_text.empty()) system_text = default_system_text_;
  std::vector<TokenId> ids;
  if (!system_text.empty()) {
    ids.push_back(message_start_);
    tokenizer_->Encode("system\n" + std::string(system_text), false, &ids);
    ids.push_back(message_end_);
    tokenizer_->Encode("\n", false, &ids);
  }
  ids.push_back(message_start_);
  tokenizer_->Encode("user\n", false, &ids);
  return ids;
}

std::vector<TokenId> ChatTemplate::QuestionSuffix(std::string_view question) const {
  std::vector<TokenId> ids;
  tokenizer_->Encode(kBeforeQuestion + std::string(question), false, &ids);
  ids.push_back(message_end_);
  tokenizer_->Encode("\n", false, &ids);
  ids.push_back(message_start_);
  tokenizer_->Encode("assistant\n", false, &ids);
  return ids;
}

std::span<const TokenId> ChatTemplate::QuestionWords(std::span<const TokenId> suffix) const {
  // A question's text is never taken for special tokens, so the last of them show where it is.
  const auto last = std::find(suffix.rbegin(), suffix.rend(), message_end_);
  const auto end = static_cast<size_t>(
      last == suffix.rend() ? suffix.size() : suffix.size() - 1 - (last - suffix.rbegin()));
  const auto turn = suffix.first(end);
  const auto start = std::find(turn.rbegin(), turn.rend(), message_start_);
  std::vector<TokenId> before;
  size_t first = 0;
  if (start == turn.rend()) {
    tokenizer_->Encode(kBeforeQuestion, false, &before);
  } else {
    first = static_cast<size_t>(turn.rend() - start);
    tokenizer_->Encode("user\n", false, &before);
  }
  if (std::equal(before.begin(), before.begin() + std::min(before.size(), end - first),
                 turn.begin() + first)) {
    first = std::min(first + before.size(), end);
  }
  return suffix.subspan(first, end - first);
}

bool ChatTemplate::IsStop(TokenId id) const {
  for (const TokenId stop : stops_) {
    if (id == stop) return true;
  }
  return false;
}

}  // namespace corpusd
