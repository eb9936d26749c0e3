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
  ASSIGN_OR_RETURN(const ChatSource source, ReadGgufChat(file));
  return FromSource(source, tokenizer);
}

Result<ChatTemplate> ChatTemplate::FromSource(const ChatSource& source,
                                              const Tokenizer& tokenizer) {
  ChatTemplate chat(tokenizer);
  for (const uint64_t id : source.end_tokens) chat.AddStop(id);
  if (tokenizer.end_token()) chat.AddStop(*tokenizer.end_token());
  if (const auto text_end = tokenizer.FindSpecial("<|endoftext|>")) chat.AddStop(*text_end);
  const bool has_chat_ml =
      tokenizer.FindSpecial(kMessageStart) && tokenizer.FindSpecial(kMessageEnd);
  const auto system_text = ParseChatMlTemplate(source.text);
  if (source.text.empty() ? has_chat_ml : system_text.ok()) {
    if (system_text.ok()) chat.default_system_text_ = *system_text;
    RETURN_IF_ERROR(chat.TakeChatMl(source.where));
    return chat;
  }
  if (source.text.empty()) {
    chat.TakeLayout(source, PlainTextLayout(), true);
    return chat;
  }
  ASSIGN_OR_RETURN(const ChatLayout layout, FindChatLayout(source));
  chat.TakeLayout(source, layout, false);
  return chat;
}

Status ChatTemplate::TakeChatMl(const std::string& where) {
  const auto start = tokenizer_->FindSpecial(kMessageStart);
  const auto end = tokenizer_->FindSpecial(kMessageEnd);
  if (!start || !end) {
    return InvalidArgumentError(where + ": the vocabulary lacks the special tokens " +
                                std::string(kMessageStart) + " and " + std::string(kMessageEnd) +
                                " that ChatML needs");
  }
  chat_ml_ = true;
  message_start_ = *start;
  message_end_ = *end;
  AddStop(*end);
  before_question_ = kBeforeQuestion;
  closing_.push_back(message_end_);
  tokenizer_->Encode("\n", false, &closing_);
  closing_.push_back(message_start_);
  tokenizer_->Encode("assistant\n", false, &closing_);
  next_turn_.push_back(message_end_);
  tokenizer_->Encode("\n", false, &next_turn_);
  next_turn_.push_back(message_start_);
  tokenizer_->Encode("user\n", false, &next_turn_);
  return OkStatus();
}

void ChatTemplate::TakeLayout(const ChatSource& source, const ChatLayout& layout, bool plain) {
  if (plain && source.start_token && *source.start_token < tokenizer_->vocabulary()) {
    opening_.push_back(static_cast<TokenId>(*source.start_token));
    before_preamble_ = opening_;
  }
  const auto encode = [&](const std::string& text, TextPlace place, std::vector<TokenId>* out) {
    if (!text.empty()) tokenizer_->Encode(text, /*parse_special=*/true, out, place);
  };
  encode(layout.opening, TextPlace::kStart, &opening_);
  encode(layout.before_preamble, TextPlace::kStart, &before_preamble_);
  encode(layout.after_preamble, TextPlace::kInside, &after_preamble_);
  before_question_ = layout.before_question;
  encode(layout.closing, TextPlace::kInside, &closing_);
  encode(layout.next_turn, TextPlace::kInside, &next_turn_);
  if (plain) {  // an answer is one line
    for (TokenId id = 0; id < tokenizer_->vocabulary(); ++id) {
      if (tokenizer_->piece(id).find('\n') != std::string_view::npos) AddStop(id);
    }
    return;
  }
  std::vector<TokenId> turn_end;
  const size_t first = layout.turn_end.find_first_not_of(" \n\t\r");
  if (first == std::string::npos) return;
  encode(layout.turn_end.substr(first), TextPlace::kInside, &turn_end);
  if (!turn_end.empty() && tokenizer_->is_special(turn_end.front())) AddStop(turn_end.front());
}

std::vector<TokenId> ChatTemplate::CorpusPrefix(std::string_view system_text) const {
  std::vector<TokenId> ids;
  if (!chat_ml_) {
    if (system_text.empty()) return opening_;
    ids = before_preamble_;
    const bool starts = ids.empty();
    tokenizer_->Encode(system_text, false, &ids, starts ? TextPlace::kStart : TextPlace::kInside);
    ids.insert(ids.end(), after_preamble_.begin(), after_preamble_.end());
    return ids;
  }
  if (system_text.empty()) system_text = default_system_text_;
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
  tokenizer_->Encode(before_question_ + std::string(question), false, &ids);
  ids.insert(ids.end(), closing_.begin(), closing_.end());
  return ids;
}

std::span<const TokenId> ChatTemplate::QuestionWords(std::span<const TokenId> suffix) const {
  // A question's text is never taken for special tokens, so what the template says shows where the
  // last question is.
  const size_t end = suffix.size() - std::min(suffix.size(), closing_.size());
  const auto turns = suffix.first(end);
  if (!next_turn_.empty()) {
    const auto last =
        std::find_end(turns.begin(), turns.end(), next_turn_.begin(), next_turn_.end());
    if (last != turns.end()) {
      const auto first = static_cast<size_t>(last - turns.begin()) + next_turn_.size();
      return suffix.subspan(first, end - first);
    }
  }
  std::vector<TokenId> before;
  tokenizer_->Encode(before_question_, false, &before);
  // A question may have been joined with what is before it.
  const bool apart =
      before.size() <= turns.size() && std::equal(before.begin(), before.end(), turns.begin());
  const size_t first = apart ? before.size() : 0;
  return suffix.subspan(first, end - first);
}

bool ChatTemplate::IsStop(TokenId id) const { return id < stops_.size() && stops_[id]; }

}  // namespace corpusd
