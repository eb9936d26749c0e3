// engine/retrieval/lexical_index.h -- BM25 (Robertson and Zaragoza 2009) over the blocks of a
// corpus: block by block the terms of its text, in one flat list that a question runs over. Blocks
// are appended, never changed. Const calls from any thread; appending from one, with no other call
// at that time.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "engine/retrieval/index_scanner.h"

namespace corpusd {

struct Bm25Rule {
  double k1 = 0.4;  // larger values favour blocks full of a question's small words
  double b = 0.2;
};

// A block's terms: each once, ascending, how often it occurs (at most 15) in the low 4 bits.
struct BlockTerms {
  std::vector<uint32_t> postings;
  uint32_t length = 0;  // terms, each time counted
};
BlockTerms CountTerms(std::string_view text);

class LexicalIndex {
 public:
  void Append(std::span<const uint32_t> postings, uint32_t length);
  // Whether these can be a block's terms: ascending, each once, none without an occurrence.
  static bool AreSane(std::span<const uint32_t> postings);

  uint64_t blocks() const { return lengths_.size(); }
  std::span<const uint32_t> postings(uint64_t block) const;
  uint32_t length(uint64_t block) const { return lengths_[block]; }
  uint64_t bytes() const;

  // [blocks]: BM25 of the question's terms, each counted once; 0 for a block with none of them.
  std::vector<float> Score(std::string_view question, const Bm25Rule& rule,
                           const IndexScanner& scanner) const;

 private:
  std::vector<uint32_t> postings_;
  std::vector<uint64_t> ends_;  // of each block's postings
  std::vector<uint32_t> lengths_;
  uint64_t total_length_ = 0;
};

}  // namespace corpusd
