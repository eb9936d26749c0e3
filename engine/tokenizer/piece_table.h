// engine/tokenizer/piece_table.h -- BPE as SentencePiece does it (Kudo, Richardson 2018): it merges
// characters, not bytes, over the whole text, a space being the character U+2581; characters that
// no token has become the tokens of their bytes; some tokens are literals that are found before
// anything is merged. Immutable once built; any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/tokenizer/merge_table.h"
#include "store/prefix_hash.h"

namespace corpusd {

class PieceTable {
 public:
  static constexpr TokenId kNoToken = MergeTable::kNoToken;
  // A word is cut here, at a character, so that memory stays bounded.
  static constexpr size_t kWordBytesMax = size_t{1} << 20;

  struct Merge {
    TokenId left, right, merged;
    uint32_t priority;  // the lowest is merged first; of equal ones the leftmost
  };
  struct Parts {
    std::unordered_map<std::string, TokenId> characters;  // U+2581 for a space
    std::vector<Merge> merges;                            // of equal pairs the first counts
    std::vector<std::string> merged_texts;                // what the merges give, for their joints
    std::vector<std::pair<std::string, TokenId>> literals;
    std::array<TokenId, 256> byte_ids;  // kNoToken: none
    TokenId unknown = kNoToken;
    bool splits_at_spaces = false;  // every space begins a word
  };
  void Build(Parts parts);

  // A word to encode at once, or a literal.
  struct Word {
    size_t bytes = 0;  // 0: more text could still change it
    TokenId literal = kNoToken;
  };
  // The first of a nonempty text as RepairUtf8 leaves it. Words end where no merge can cross.
  Word FirstWord(std::string_view text, bool last) const;
  // Appends a word's ids.
  void Encode(std::string_view word, std::vector<TokenId>* out) const;

 private:
  struct Slot {
    uint64_t key = ~uint64_t{0};
    uint32_t priority = 0;
    TokenId merged = 0;
  };
  struct Symbol;
  struct Candidate;
  const Slot* Find(TokenId left, TokenId right) const;
  size_t LiteralAt(std::string_view text, TokenId* id) const;
  void EncodeUnknown(std::string_view character, std::vector<TokenId>* out) const;
  void Symbols(std::string_view word, std::vector<Symbol>* symbols) const;

  Parts parts_;
  std::vector<Slot> slots_;  // open addressing
  uint32_t shift_ = 0;
  std::vector<bool> joints_;  // hashes of pairs of characters that stand together in a token
  // Literals as a tree: node << 8 | byte to node; the first node is 0.
  std::unordered_map<uint64_t, uint32_t> branches_;
  std::vector<TokenId> literal_of_node_;
  std::array<bool, 256> literal_starts_{};
  size_t literal_bytes_max_ = 0;
};

}  // namespace corpusd
