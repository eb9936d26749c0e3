// engine/tokenizer/tokenizer_tables.h -- what a tokenizer is built from, wherever it was read: GGUF
// metadata or a folder's tokenizer.json. Plain data, not checked yet: tokenizer_loader.h does that.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "store/base/result.h"

namespace corpusd {

enum class TokenizerModel : uint8_t {
  kByteLevel,      // GPT-2's
  kSentencePiece,  // merges characters, with byte fallback: Llama 2, Mistral, Gemma
};

// Whether a text begins with a space that it does not have.
enum class SpacePrefix : uint8_t {
  kNone,
  kFirst,         // at its very beginning
  kEverySection,  // after every special token, too
};

struct TokenizerTables {
  std::string where;  // the file, for messages
  TokenizerModel model = TokenizerModel::kByteLevel;
  std::string pre;                  // the rule that cuts words, as GGUF names it; "": none
  std::vector<std::string> texts;   // by id; of kByteLevel, bytes as GPT-2's printable stand-ins
  std::vector<int64_t> kinds;       // by id, GGUF's token types
  std::vector<std::string> merges;  // "left right", best first
  // There are no merges but the ids: any two tokens that give a third, the lowest third first.
  bool merges_by_id = false;
  bool whole_words = false;  // a word that is a token is that token, whatever merges say
  bool nfc = false;          // texts are brought to Unicode's normal form C
  std::optional<uint64_t> end_token;
  std::string chat_template;  // "": none
  // Of kSentencePiece: by id, the better are merged first. Empty: merges say it.
  std::vector<float> scores;
  SpacePrefix space_prefix = SpacePrefix::kNone;
  bool prefix_unless_space = false;  // none before a text that begins with a space
  bool splits_at_spaces = false;     // no merge crosses the beginning of a space
  std::optional<uint64_t> unknown_token;
};

// The byte of SentencePiece's byte tokens: "<0x41>" is 0x41; none of other texts.
std::optional<uint8_t> ByteOfToken(std::string_view text);

// BPE, byte-level or SentencePiece's, of a folder's tokenizer.json, or if there is none of its
// tokenizer.model (rank_file.h), with the chat template and the end token of the files beside it.
// kNotFound: there is neither. kUnimplemented: another kind of tokenizer, or a step that is not
// known. kInvalidArgument: malformed.
Result<TokenizerTables> ReadTokenizerFolder(const std::string& folder);

}  // namespace corpusd
