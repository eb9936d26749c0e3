// Conversations of several turns, alone or behind a corpus that holds the first user's turn open.
#include <algorithm>

#include "engine/tokenizer/chat_template.h"

namespace corpusd {
namespace {

constexpr std::string_view kSystem = "system", kUser = "user", kAssistant = "assistant";

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

std::vector<TokenId> ChatTemplate::Conversation(std::span<const ChatMessage> messages) const {
  std::vector<TokenId> ids;
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
  size_t next = 0;
  for (; next < messages.size(); ++next) {
    const bool user = messages[next].role == kUser;
    if (!user && messages[next].role != kSystem) break;
    first += (first.empty() ? "" : "\n\n") + messages[next].content;
    if (!user) continue;
    ++next;
    break;
  }
  std::vector<TokenId> ids = QuestionSuffix(first);
  if (next == messages.size()) return ids;
  std::vector<TokenId> begin;
  AppendAnswerBegin(&begin);
  ids.resize(ids.size() - begin.size());
  for (; next < messages.size(); ++next) {
    AppendTurn(messages[next].role, messages[next].content, &ids);
  }
  AppendAnswerBegin(&ids);
  return ids;
}

}  // namespace corpusd
