// engine/ranks/rank_pages.h -- one rank's share of a chain: which blocks it must have at hand to
// attend to the whole together with the others, leases of them where its backend reads them, and
// sequences over all pages in which those of other ranks are remote. What a rank wants follows from
// the chain, so rank 0 knows it too. One thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/kv/kv_sequence.h"
#include "engine/ranks/placement.h"
#include "engine/ranks/rank_blocks.h"

namespace corpusd {

struct WantedBlock {
  uint32_t part = 0;   // of the layers
  uint64_t block = 0;  // in the chain
  Digest digest;       // of the part's bytes
};

class RankPages {
 public:
  struct Text {
    std::vector<Digest> chain;
    uint64_t tokens = 0;  // in it
  };
  // all: the rank wants every block, such as those of a preamble; else what `placement` gives it,
  // and what layers that do not see everything see at the end.
  RankPages(const KvLayout& layout, Text text, const Placement& placement, uint32_t rank, bool all);

  const KvLayout& layout() const { return layout_; }
  const Text& text() const { return text_; }
  // Part 0 first, by block; then the others.
  std::span<const WantedBlock> wanted() const { return wanted_; }
  uint32_t TokensOf(uint64_t block) const;
  // Takes what the holder has of them. RETURNS the digests of the others, in order.
  std::vector<Digest> FindHeld(BlockHolder& holder);
  // refs: of what FindHeld gave, in order; invalid: not at hand yet. kResourceExhausted: the holder
  // has no room.
  Status Put(std::span<const BlockRef> refs, BlockHolder& holder);
  struct Given {
    size_t wanted = 0;
    BlockRef ref;
  };
  Status Put(std::span<const Given> given, BlockHolder& holder);
  bool Has(size_t wanted) const { return held_[wanted].valid(); }
  // Where the backend reads it. REQUIRES: Has.
  const std::byte* bytes(size_t wanted) const { return held_[wanted].data(); }

  // Over all blocks; must not outlive this. REQUIRES: all wanted ones are at hand.
  std::unique_ptr<KvSequence> Sequence() const;
  // The same without a page more than these: for the begin of a chain that all ranks have.
  std::vector<KvSequence::SharedPage> Pages() const;

 private:
  const KvLayout layout_;
  const Text text_;
  std::vector<WantedBlock> wanted_;
  std::vector<HeldBlock> held_;  // of wanted_
};

}  // namespace corpusd
