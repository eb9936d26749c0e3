// engine/tokenizer/tokenizer.h -- text to token ids and back: byte-level BPE as GPT-2 introduced
// it, or BPE over characters as SentencePiece does it, with the vocabulary, merges and rules that a
// model's files name. Ids equal those of Hugging Face's tokenizers, or of llama.cpp for what GGUF
// files hold alone. Immutable after loading; any thread. Long texts go through StreamingEncoder
// (streaming_encoder.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/tokenizer/merge_table.h"
#include "engine/tokenizer/piece_table.h"
#include "engine/tokenizer/tokenizer_tables.h"
#include "engine/tokenizer/word_rules.h"
#include "store/base/result.h"
#include "store/prefix_hash.h"

namespace corpusd {

class GgufFile;

// Where a text stands: some vocabularies put a space before what begins one.
enum class TextPlace : uint8_t { kInside, kStart };

class Tokenizer {
 public:
  // Copies what it needs out of the file. kUnimplemented for a tokenizer or pre-tokenizer of
  // another kind, kInvalidArgument for contradictory tables.
  static Result<std::unique_ptr<Tokenizer>> FromGguf(const GgufFile& file);
  static Result<std::unique_ptr<Tokenizer>> FromTables(TokenizerTables tables);

  // Appends the ids of text, which may be any bytes: what is not UTF-8 counts as U+FFFD, byte by
  // byte. parse_special: occurrences of special tokens' texts become those tokens. Never for users'
  // text.
  void Encode(std::string_view text, bool parse_special, std::vector<TokenId>* out,
              TextPlace place = TextPlace::kInside) const;
  // The bytes the ids stand for, specials by their text. Not always whole UTF-8 characters. Ids
  // outside the vocabulary give nothing.
  std::string Decode(std::span<const TokenId> ids) const;
  // REQUIRES: id < vocabulary().
  std::string_view piece(TokenId id) const { return pieces_[id]; }
  bool is_special(TokenId id) const { return id < special_.size() && special_[id]; }
  std::optional<TokenId> FindSpecial(std::string_view text) const;
  // The file's end-of-sequence token, if it names one.
  std::optional<TokenId> end_token() const { return end_token_; }
  uint32_t vocabulary() const { return static_cast<uint32_t>(pieces_.size()); }
  // SHA-256 over everything that decides ids: vocabulary, kinds, merges, pre-tokenizer, chat
  // template.
  const std::string& DigestHex() const { return digest_hex_; }

  const MergeTable& merges() const { return merges_; }
  WordRule word_rule() const { return word_rule_; }
  // Words that are tokens at once, not by their merges; empty for most vocabularies.
  const std::unordered_map<std::string_view, TokenId>& whole_words() const { return whole_words_; }
  // Null for byte-level vocabularies.
  const PieceTable* pieces() const { return piece_table_.get(); }
  bool nfc() const { return nfc_; }
  bool prefix_unless_space() const { return prefix_unless_space_; }
  SpacePrefix space_prefix() const { return space_prefix_; }

 private:
  friend class TokenizerLoader;
  struct SpecialMatch {
    size_t at = std::string_view::npos;
    TokenId id = 0;
  };

  Tokenizer() = default;
  SpecialMatch FindFirstSpecial(std::string_view text) const;

  std::vector<std::string> pieces_;                            // by id, as bytes
  std::vector<bool> special_;                                  // by id
  std::unordered_map<std::string_view, TokenId> special_ids_;  // views into pieces_
  std::vector<TokenId> specials_by_length_;                    // longest text first
  std::string special_starts_;  // the bytes that their texts begin with
  std::optional<TokenId> end_token_;
  std::string digest_hex_;
  MergeTable merges_;
  WordRule word_rule_ = WordRule::kSmolLm;
  std::unordered_map<std::string_view, TokenId> whole_words_;  // views into pieces_
  std::unique_ptr<const PieceTable> piece_table_;
  bool nfc_ = false;
  bool prefix_unless_space_ = false;
  SpacePrefix space_prefix_ = SpacePrefix::kNone;
};

}  // namespace corpusd
