// engine/tokenizer/chat_template.h -- the tokens around a corpus and a question in a conversation.
// Knows the ChatML layout natively, with the default system text that the model's template carries;
// it is no Jinja interpreter and refuses other templates. The corpus opens the user's message and
// the question closes it:
//   <|im_start|>system\nTEXT<|im_end|>\n<|im_start|>user\n CORPUS
//   \n\nQUESTION<|im_end|>\n<|im_start|>assistant\n
// Texts are never searched for special tokens. Immutable; any thread. The Tokenizer must outlive
// it.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/tokenizer/chat_message.h"
#include "engine/tokenizer/tokenizer.h"
#include "store/base/result.h"

namespace corpusd {

class GgufFile;

class ChatTemplate {
 public:
  // kUnimplemented if the file's template is another than ChatML; kInvalidArgument if the
  // vocabulary lacks ChatML's tokens. A file without a template but with those tokens is taken as
  // ChatML.
  static Result<ChatTemplate> FromGguf(const GgufFile& file, const Tokenizer& tokenizer);
  // The same of a template's text; "": there is none. where: the file, for messages.
  static Result<ChatTemplate> FromText(const std::string& text, const std::string& where,
                                       const Tokenizer& tokenizer);

  // What comes before the corpus. system_text: "" for the template's default, if it has one.
  std::vector<TokenId> CorpusPrefix(std::string_view system_text) const;
  // What comes after the corpus, up to where the model answers.
  std::vector<TokenId> QuestionSuffix(std::string_view question) const;
  // A conversation without a corpus, up to where the model answers. The template's default system
  // text opens it if the messages bring none.
  std::vector<TokenId> Conversation(std::span<const ChatMessage> messages) const;
  // The same behind a corpus, whose turn the first user's message closes; system texts before it go
  // into that turn.
  std::vector<TokenId> ConversationSuffix(std::span<const ChatMessage> messages) const;
  // Of a suffix the tokens of the last question itself.
  std::span<const TokenId> QuestionWords(std::span<const TokenId> suffix) const;
  // True for the tokens that end an answer.
  bool IsStop(TokenId id) const;

  const std::string& default_system_text() const { return default_system_text_; }

 private:
  explicit ChatTemplate(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}
  void AppendTurn(std::string_view role, std::string_view content, std::vector<TokenId>* ids) const;
  void AppendAnswerBegin(std::vector<TokenId>* ids) const;

  const Tokenizer* tokenizer_;
  std::string default_system_text_;
  TokenId message_start_ = 0;
  TokenId message_end_ = 0;
  std::vector<TokenId> stops_;
};

// RETURNS the default system text ("" if there is none) of a ChatML template, or kUnimplemented.
Result<std::string> ParseChatMlTemplate(std::string_view text);

}  // namespace corpusd
