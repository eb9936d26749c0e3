// engine/tokenizer/merge_table.h -- the merges of a byte-level BPE as flat tables, and the merging
// of one word. Immutable once built; any thread may merge, each with its own MergeScratch.
#pragma once

#include <array>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "store/prefix_hash.h"

namespace corpusd {

// Working memory of MergeTable::Encode, reused from word to word.
struct MergeScratch {
  struct Symbol {
    TokenId id;
    int32_t previous, next;  // -1: none
  };
  struct Candidate {
    uint32_t rank;
    int32_t left;
    TokenId left_id, right_id;  // as when it was found; it is stale if they have changed
  };
  std::vector<Symbol> symbols;
  std::vector<Candidate> heap;
};

class MergeTable {
 public:
  // Stands for a byte that the vocabulary lacks: merges with nothing and gives no id.
  static constexpr TokenId kNoToken = 0xffffffff;
  static constexpr uint32_t kNoRank = 0xffffffff;
  // What fits the packed slots: 20 bits an id, 24 bits a rank.
  static constexpr uint32_t kVocabularyMax = (1 << 20) - 1;
  static constexpr uint32_t kMergesMax = (1 << 24) - 1;

  struct Merge {
    TokenId left, right, merged;
  };
  // byte_ids: the token of each single byte, or kNoToken. merges: best rank first; of equal pairs
  // the first counts. merged_pieces: the bytes of each merge's result. one_rank: merges that follow
  // one another and have one result have one rank. REQUIRES: the limits above.
  void Build(const std::array<TokenId, 256>& byte_ids, const std::vector<Merge>& merges,
             const std::vector<std::string_view>& merged_pieces, bool one_rank = false);

  // RETURNS the rank of merging the pair, or kNoRank.
  uint32_t Rank(TokenId left, TokenId right) const;
  // Appends the ids of one pre-token: repeatedly merges the pair of the lowest rank, the leftmost
  // of equals.
  void Encode(std::string_view word, MergeScratch* scratch, std::vector<TokenId>* out) const;
  // True if some token holds byte a directly before byte b. Where none does, no merge crosses, so a
  // word may be encoded in two parts there.
  bool MayJoin(uint8_t a, uint8_t b) const { return joins_[size_t{a} << 8 | b]; }

 private:
  void EncodeShort(std::string_view word, std::vector<TokenId>* out) const;
  void EncodeLong(std::string_view word, MergeScratch* scratch, std::vector<TokenId>* out) const;

  std::array<TokenId, 256> byte_ids_{};
  std::vector<uint64_t> slots_;      // left id << 44 | right id << 24 | rank, open addressing
  uint32_t shift_ = 0;               // 64 - log2(slots)
  std::vector<TokenId> merged_ids_;  // by rank
  std::bitset<65536> joins_;
};

}  // namespace corpusd
