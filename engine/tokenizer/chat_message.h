// engine/tokenizer/chat_message.h -- one turn of a conversation, as applications write it. Plain
// data; which roles there are is the chat template's business.
#pragma once

#include <string>

namespace corpusd {

struct ChatMessage {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

}  // namespace corpusd
