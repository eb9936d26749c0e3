// engine/retrieval/corpus_index.h -- what one corpus is searched by: the keys of the retrieval
// heads for every token and the words of every block, in memory, with a byte form for the store.
// Block i is block i of the corpus's chain. Const calls from any thread; adding from one, with no
// other call at that time.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/retrieval/index_scanner.h"
#include "engine/retrieval/lexical_index.h"
#include "engine/retrieval/retrieval_keys.h"
#include "engine/retrieval/retrieval_rule.h"
#include "store/base/result.h"
#include "store/prefix_hash.h"

namespace corpusd {

struct RetrievalQuery {
  // [rows][heads][head_dim]: queries of the question's own words (not of the template around them)
  // before positions, of the layout's heads in their order, computed behind the preamble alone.
  // Empty: words only.
  std::span<const float> q;
  uint32_t rows = 0;
  std::string_view text;  // whose words are looked for
  // Blocks before it (the preamble, which is attended anyway) neither count nor compete: they score
  // below all others.
  uint64_t first_block = 0;
};

class CorpusIndex {
 public:
  // layout must outlive the index.
  explicit CorpusIndex(const IndexLayout& layout) : layout_(layout), keys_(layout) {}
  CorpusIndex(const CorpusIndex&) = delete;
  CorpusIndex& operator=(const CorpusIndex&) = delete;

  struct StoredBlock {
    const KvFormat* format = nullptr;
    const KvCalibration* calibration = nullptr;  // of coded formats
    const std::byte* bytes = nullptr;            // format->BlockBytes()
    uint32_t tokens = 0;
  };
  // A block's part of an index. text: of the block with RetrievalRule::lexical_margin_tokens around
  // it. The same block and text give the same part, byte for byte. Any thread, also while blocks
  // are added.
  struct BlockPart {
    std::vector<std::byte> keys;  // layout.block_bytes()
    uint32_t tokens = 0;
    BlockTerms terms;
  };
  static BlockPart MakePart(const IndexLayout& layout, const StoredBlock& block,
                            std::string_view text);
  // The same with the keys that this index holds of the digest. REQUIRES: Has(digest).
  BlockPart PartOf(const Digest& digest, std::string_view text) const;
  // Adds the corpus's next block. kResourceExhausted: no memory.
  Status Add(const Digest& digest, const BlockPart& part);
  Status AddBlock(const Digest& digest, const StoredBlock& block, std::string_view text) {
    return Add(digest, MakePart(layout_, block, text));
  }
  // The same with the keys that `from` holds of this digest. RETURNS false, and adds nothing, if it
  // has none. from: of the same layout.
  Result<bool> AdoptBlock(const Digest& digest, const CorpusIndex& from, std::string_view text);

  const IndexLayout& layout() const { return layout_; }
  uint64_t blocks() const { return digests_.size(); }
  uint64_t bytes() const;  // of memory
  const Digest& digest(uint64_t block) const { return digests_[block]; }
  uint32_t tokens(uint64_t block) const { return keys_.tokens(block); }
  bool Has(const Digest& digest) const { return places_.contains(digest); }

  struct Scores {
    // [blocks]: how likely each block is to answer, in standard deviations of all blocks; the
    // larger the better.
    std::vector<float> of_blocks;
    std::vector<double> log_sums;  // for HitToken
  };
  // The same for any number of threads.
  Scores Search(const RetrievalQuery& query, RetrievalPolicy policy, const RetrievalRule& rule,
                const IndexScanner& scanner) const;
  std::vector<float> Score(const RetrievalQuery& query, RetrievalPolicy policy,
                           const RetrievalRule& rule, const IndexScanner& scanner) const {
    return Search(query, policy, rule, scanner).of_blocks;
  }
  // The token of a block that the query's heads look at most, of all rows together: where in it the
  // hit is. The middle one of a query without rows. scores: of the same query.
  uint32_t HitToken(const RetrievalQuery& query, const Scores& scores, uint64_t block,
                    const IndexScanner& scanner) const;
  // The share of each of these blocks in the attention of the retrieval heads' queries (softmax
  // over the blocks' tokens, mean over rows and heads): sums to 1. q as in RetrievalQuery.
  std::vector<float> Mass(std::span<const float> q, uint32_t rows, std::span<const uint64_t> blocks,
                          const IndexScanner& scanner) const;
  // The byte form (store/FORMAT.md's terms): "CKVIDX1\n", the digest of the heads, uint32 tile
  // bytes, uint32 sources, uint64 blocks, uint32 CRC32C of these; then a record a block: digest,
  // uint32 tokens, uint32 length, uint32 postings, the postings, tiles of all sources, uint32
  // CRC32C of the record. All little-endian.
  struct ByteForm {
    std::string own;                                // what is not in the index
    std::vector<std::span<const std::byte>> parts;  // in order, of `own` and of the index
  };
  // The index must outlive it, unchanged.
  std::unique_ptr<const ByteForm> Serialize() const;
  // kCorruption, saying where, unless the bytes are whole; kFailedPrecondition: of other retrieval
  // heads. kResourceExhausted: no memory.
  static Result<std::unique_ptr<CorpusIndex>> Parse(const IndexLayout& layout,
                                                    std::span<const std::byte> bytes);

 private:
  void Remember(const Digest& digest);

  const IndexLayout& layout_;
  RetrievalKeys keys_;
  LexicalIndex words_;
  std::vector<Digest> digests_;
  std::unordered_map<Digest, uint64_t, DigestHash> places_;  // the first block of a digest
};

}  // namespace corpusd
