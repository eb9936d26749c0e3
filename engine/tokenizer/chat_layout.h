// engine/tokenizer/chat_layout.h -- the texts around a corpus and a question in a conversation,
// taken from a chat template: it is rendered with marks in their places and cut at the marks. Knows
// no tokens. Pure; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "store/base/result.h"

namespace corpusd {

class GgufFile;

// What a model's files say about conversations, wherever it was read.
struct ChatSource {
  std::string where;     // the file or folder, for messages
  std::string text;      // of the template; "": there is none
  std::string bos_text;  // the token that texts begin with; "": none
  std::string eos_text;
  std::vector<uint64_t> end_tokens;     // ids that end an answer
  std::optional<uint64_t> start_token;  // of texts, if the model wants one
};

struct ChatLayout {
  // Before the corpus if there is no preamble; otherwise what is before and after the preamble.
  std::string opening;
  std::string before_preamble, after_preamble;
  std::string before_question;  // between corpus and question
  std::string closing;          // after the question, up to where the model answers
  std::string next_turn;        // between an answer and the next question
  std::string turn_end;         // what follows an answer; "" if the template does not tell
};

// Of a template. A template without a system role gets the preamble in the user's message. Errors
// are the template's own, or kUnimplemented if it changes, repeats or drops what the user says.
Result<ChatLayout> FindChatLayout(const ChatSource& source);

// Of a model that was trained on texts alone: questions and answers as lines.
ChatLayout PlainTextLayout();

// Of a GGUF file's metadata. Errors as GgufFile's.
Result<ChatSource> ReadGgufChat(const GgufFile& file);
// Of a folder: chat_template.jinja or tokenizer_config.json, generation_config.json, config.json.
// kInvalidArgument for a malformed file; missing ones are no error.
Result<ChatSource> ReadFolderChat(const std::string& folder);

}  // namespace corpusd
