// engine/tokenizer/tokenizer_tables.h -- what a tokenizer is built from, wherever it was read: GGUF
// metadata or a folder's tokenizer.json. Plain data, not checked yet: tokenizer_loader.h does that.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "store/base/result.h"

namespace corpusd {

struct TokenizerTables {
  std::string where;                // the file, for messages
  std::string pre;                  // the rule that cuts words, as GGUF names it
  std::vector<std::string> texts;   // by id, bytes as GPT-2's printable stand-ins
  std::vector<int64_t> kinds;       // by id, GGUF's token types
  std::vector<std::string> merges;  // "left right", best first
  bool whole_words = false;         // a word that is a token is that token, whatever merges say
  std::optional<uint64_t> end_token;
  std::string chat_template;  // "": none
};

// Byte-level BPE of a folder's tokenizer.json, with the chat template and the end token of the
// files beside it. kNotFound: there is no tokenizer.json. kUnimplemented: another kind of
// tokenizer, or a step that is not known. kInvalidArgument: malformed.
Result<TokenizerTables> ReadTokenizerFolder(const std::string& folder);

}  // namespace corpusd
