// engine/prefill/local_parts.h -- the parts of layers that see a chunk or a window: of which blocks
// a corpus keeps them, where a computation can begin, and the pages that one needs at hand. What
// layers of part 0 see is in the chain itself. A restore point is a number of tokens at which every
// part has what its layers can see from there on.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "engine/kv/kv_sequence.h"
#include "store/block_store.h"

namespace corpusd {

// For chunks, every multiple of a chunk is a restore point and costs nothing; the end of a corpus
// is kept as one, and so is the begin of the run that it ends in, from which an append computes.
// For windows one is kept every so many windows as well, so that a branch, a cut or damage does not
// cost the whole corpus; it takes one of so many parts of what keeping them all would.
inline constexpr uint64_t kPointWindows = 64;

// The first position that layers of the part see at `position`, and the blocks that hold what they
// see before it. REQUIRES: a part with a span.
uint64_t FirstSeen(const LayerPart& part, uint64_t position);
BlockRange NeededBlocks(const LayerPart& part, uint64_t position);
// Of which blocks a corpus of so many computed tokens keeps the part.
std::vector<BlockRange> HeldBlocks(const LayerPart& part, uint64_t tokens);
// What a corpus of so many tokens says of its parts before anything is computed; none without
// parts.
std::vector<CorpusPart> PartsOf(const KvLayout& layout, uint64_t tokens);
// What a corpus keeps once it has grown to `tokens`, of what it kept and of its blocks from
// `first_new` on.
void HoldParts(const KvLayout& layout, uint64_t tokens, uint64_t first_new,
               std::vector<CorpusPart>* parts);

// Which parts of a chain's blocks a store has, whatever corpora keep them. One thread.
class StoredParts {
 public:
  StoredParts(const BlockStore& store, const KvLayout& layout, std::span<const Digest> chain)
      : store_(store), layout_(layout), chain_(chain), known_(layout.part_count()) {}

  // The last restore point that is not above `tokens`, the tokens of stored blocks of the chain: a
  // multiple of a run, or `tokens` itself.
  Result<uint64_t> RestorePoint(uint64_t tokens);
  // Of what a corpus of so many tokens keeps: what is stored.
  Status Hold(uint64_t tokens, std::vector<CorpusPart>* parts);

 private:
  Result<bool> Has(uint32_t part, uint64_t block);
  Result<bool> HasAll(uint64_t position);

  const BlockStore& store_;
  const KvLayout& layout_;
  const std::span<const Digest> chain_;
  std::vector<std::map<uint64_t, std::vector<bool>>> known_;  // by part and piece of the chain
};

// Pages of the parts behind part 0, leased from a store or in memory where they were computed. One
// thread.
class LocalPages {
 public:
  // Leases what is missing of what layers see from `position` on, and lets go of the rest. RETURNS
  // false if some of it is damaged or not stored.
  Result<bool> Fetch(BlockStore& store, const KvLayout& layout, std::span<const Digest> chain,
                     uint64_t position, FetchStats* stats);
  // If the backend does not read host memory: copies leased pages to its own, once for all passes.
  Status Place(Backend& backend);
  // Keeps the own pages of a sequence, which begin with this block.
  void Keep(std::shared_ptr<const KvSequence> computed, uint64_t first_block);
  // Before it no block has a page here.
  size_t first_block() const;
  // Of a block, for KvSequence::SharedPage; null: not here.
  std::vector<const std::byte*> Of(uint64_t block, size_t parts) const;

 private:
  struct Page {
    BlockRef leased;
    std::shared_ptr<const KvSequence> computed;
    std::shared_ptr<Buffer> placed;
    const std::byte* bytes = nullptr;
  };
  std::map<std::pair<uint32_t, uint64_t>, Page> pages_;  // by part, then block
};

}  // namespace corpusd
