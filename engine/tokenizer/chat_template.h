// engine/tokenizer/chat_template.h -- the tokens around a corpus and a question in a conversation.
// The corpus opens the user's message and the question closes it. ChatML is known natively, with
// the default system text of the model's template; other templates are rendered once and cut where
// corpus and question stand (chat_layout.h); models without a template get lines of text. Template
// texts may name special tokens; users' texts are never searched for them, and are encoded apart
// from the texts around them, so that a corpus has its own tokens. Immutable; any thread. The
// Tokenizer must outlive it.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/tokenizer/chat_layout.h"
#include "engine/tokenizer/chat_message.h"
#include "engine/tokenizer/tokenizer.h"
#include "store/base/result.h"

namespace corpusd {

class GgufFile;

// ChatML is
//   <|im_start|>system\nTEXT<|im_end|>\n<|im_start|>user\n CORPUS
//   \n\nQUESTION<|im_end|>\n<|im_start|>assistant\n
class ChatTemplate {
 public:
  // Errors of the template (FindChatLayout); kInvalidArgument if the vocabulary lacks ChatML's
  // tokens for a ChatML template. Without a template but with those tokens it is taken as ChatML.
  static Result<ChatTemplate> FromGguf(const GgufFile& file, const Tokenizer& tokenizer);
  static Result<ChatTemplate> FromSource(const ChatSource& source, const Tokenizer& tokenizer);

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
  explicit ChatTemplate(const Tokenizer& tokenizer)
      : tokenizer_(&tokenizer), stops_(tokenizer.vocabulary()) {}

  Status TakeChatMl(const std::string& where);
  void TakeLayout(const ChatSource& source, const ChatLayout& layout, bool plain);
  void AddStop(uint64_t id) {
    if (id < stops_.size()) stops_[id] = true;
  }
  // ChatML's.
  void AppendTurn(std::string_view role, std::string_view content, std::vector<TokenId>* ids) const;
  void AppendAnswerBegin(std::vector<TokenId>* ids) const;
  // Answers and further questions, behind a question and its closing.
  void AppendTurns(std::span<const ChatMessage> messages, std::vector<TokenId>* ids) const;

  const Tokenizer* tokenizer_;
  std::string default_system_text_;  // ChatML's
  // Around the corpus without and with a preamble; the template's texts as tokens.
  std::vector<TokenId> opening_, before_preamble_, after_preamble_;
  std::string before_question_;
  std::vector<TokenId> closing_, next_turn_;
  // Of ChatML, which joins its words with the texts beside them.
  bool chat_ml_ = false;
  TokenId message_start_ = 0;
  TokenId message_end_ = 0;
  std::vector<bool> stops_;  // by id
};

// RETURNS the default system text ("" if there is none) of a ChatML template, or kUnimplemented.
Result<std::string> ParseChatMlTemplate(std::string_view text);

}  // namespace corpusd
