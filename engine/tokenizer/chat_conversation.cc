// Conversations of several turns, alone or behind a corpus that holds the first user's turn open.
#include <algorithm>

#include "engine/tokenizer/chat_template.h"

namespace corpusd {
namespace {

constexpr std::string_view kSystem = "system", kUser = "user", kAssistant = "assistant";

void AppendText(std::string_view text, std::string* to) {
  if (text.empty()) return;
  *to += to->empty() ? "" : "\n\n";
  *to += text;
}

// What the system says at the beginning, and the first question. RETURNS how many messages that
// are.
size_t TakeFirstQuestion(std::span<const ChatMessage> messages, std::string* system,
                         std::string* question) {
  size_t next = 0;
  for (; next < messages.size() && messages[next].role == kSystem; ++next) {
    AppendText(messages[next].content, system);
  }
  for (; next < messages.size() && messages[next].role != kAssistant; ++next) {
    AppendText(messages[next].content, question);
  }
  return next;
}

}  // namespace

void ChatTemplate::AppendTurn(std::string_view role, std::string_view content,
                              std::vector<TokenId>* ids) const {
  ids->push_back(message_start_);
  tokenizer_->Encode(std::string(role) + "\n" + std::string(content), false, ids);
  ids->push_back(message_end_);
  tokenizer_->Encode("\n", false, ids);
}

void ChatTemplate::AppendAnswerBegin(std::vector<TokenId>* ids) const {
  ids->push_back(message_start_);
  tokenizer_->Encode(std::string(kAssistant) + "\n", false, ids);
}

void ChatTemplate::AppendTurns(std::span<const ChatMessage> messages,
                               std::vector<TokenId>* ids) const {
  if (chat_ml_) {
    std::vector<TokenId> begin;
    AppendAnswerBegin(&begin);
    ids->resize(ids->size() - begin.size());
    for (const ChatMessage& message : messages) AppendTurn(message.role, message.content, ids);
    AppendAnswerBegin(ids);
    return;
  }
  // Templates want turns in turn: what several say after one another is said by one.
  for (size_t i = 0; i < messages.size();) {
    std::string answer;
    std::string question;
    for (; i < messages.size() && messages[i].role == kAssistant; ++i) {
      AppendText(messages[i].content, &answer);
    }
    for (; i < messages.size() && messages[i].role != kAssistant; ++i) {
      AppendText(messages[i].content, &question);
    }
    tokenizer_->Encode(answer, false, ids, TextPlace::kInside);
    ids->insert(ids->end(), next_turn_.begin(), next_turn_.end());
    tokenizer_->Encode(question, false, ids, TextPlace::kInside);
    ids->insert(ids->end(), closing_.begin(), closing_.end());
  }
}

std::vector<TokenId> ChatTemplate::Conversation(std::span<const ChatMessage> messages) const {
  std::vector<TokenId> ids;
  if (!chat_ml_) {
    std::string system;
    std::string question;
    const size_t next = TakeFirstQuestion(messages, &system, &question);
    ids = CorpusPrefix(system);
    const TextPlace place = ids.empty() ? TextPlace::kStart : TextPlace::kInside;
    tokenizer_->Encode(question, false, &ids, place);
    ids.insert(ids.end(), closing_.begin(), closing_.end());
    AppendTurns(messages.subspan(next), &ids);
    return ids;
  }
  if (!default_system_text_.empty() && (messages.empty() || messages[0].role != kSystem)) {
    AppendTurn(kSystem, default_system_text_, &ids);
  }
  for (const ChatMessage& message : messages) AppendTurn(message.role, message.content, &ids);
  AppendAnswerBegin(&ids);
  return ids;
}

std::vector<TokenId> ChatTemplate::ConversationSuffix(std::span<const ChatMessage> messages) const {
  // The corpus stands in the first user's turn, so what the system says comes behind it, there.
  std::string first;
  std::string question;
  const size_t next = TakeFirstQuestion(messages, &first, &question);
  AppendText(question, &first);
  std::vector<TokenId> ids = QuestionSuffix(first);
  if (next < messages.size()) AppendTurns(messages.subspan(next), &ids);
  return ids;
}

}  // namespace corpusd
