// store/corpus_chain.h -- which tokens each block of a corpus holds, and the chain of its digests.
// An exact corpus is one segment. A segmented one begins with its preamble (the tokens before the
// first source), and every source after it is a document of one or more segments, each a chain of
// its own that starts from the preamble's last block: so a document's blocks depend on the preamble
// and on the document alone, wherever it stands in the corpus. Segments after a document's first
// see the overlap before them as context: computed again, hashed, not stored. Pure; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "store/corpus_record.h"
#include "store/prefix_hash.h"

namespace corpusd {

struct CorpusSegment {
  uint64_t first_token = 0;
  uint64_t tokens = 0;
  uint32_t context_tokens = 0;  // right before first_token, seen but not stored here
  uint64_t first_block = 0;     // in the corpus's chain
  uint64_t blocks = 0;
  uint64_t source = 0;  // index of the source; of the preamble, of an exact corpus: unused
};

struct BlockSpan {
  uint64_t first_token = 0;
  uint32_t tokens = 0;
};

class CorpusChain {
 public:
  // tokens: of the whole corpus, published or not.
  CorpusChain(const CorpusRecord& record, uint32_t block_tokens);

  // In order of their blocks. Of a segmented corpus the first is the preamble, which has at least
  // one token.
  std::span<const CorpusSegment> segments() const { return segments_; }
  uint64_t blocks() const { return blocks_; }
  BlockSpan block(uint64_t index) const;
  const CorpusSegment& SegmentOfBlock(uint64_t index) const;
  // How many leading tokens of the corpus the first `blocks` blocks hold.
  uint64_t TokensOfBlocks(uint64_t blocks) const;
  // The digests of all blocks. REQUIRES: tokens are those of the corpus.
  std::vector<Digest> Digests(const Digest& root, std::span<const TokenId> tokens) const;

 private:
  void Add(uint64_t first_token, uint64_t tokens, uint32_t context_tokens, uint64_t source);

  const uint32_t block_tokens_;
  std::vector<CorpusSegment> segments_;
  uint64_t blocks_ = 0;
};

// Ok if the record's sources lie behind each other from the preamble to the end of its tokens;
// else kCorruption. An exact corpus is always ok.
Status CheckSegmented(const CorpusRecord& record, uint32_t block_tokens);

}  // namespace corpusd
