// engine/ranks/rank_blocks.h -- the blocks that a rank has at hand, leased: those of the store of
// its own process, or, of a rank without a store, those that it was given or computed, in a host
// tier of its own. Thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/ranks/rank_message.h"
#include "store/block_place.h"
#include "store/block_store.h"

namespace corpusd {

class RankBlocks {
 public:
  virtual ~RankBlocks() = default;
  // In order; those that are not at hand are invalid. kResourceExhausted: memory has no room.
  virtual Result<std::vector<BlockRef>> Find(std::span<const Digest> digests) = 0;
  struct Block {
    Digest digest;
    uint32_t tokens = 0;
    BlockPlace place;
    std::span<const std::byte> bytes;
  };
  // Whether a block that was computed here has to be kept to be found.
  virtual bool keeps() const = 0;
  // Keeps a copy. kResourceExhausted: leases leave no room for it.
  virtual Result<BlockRef> Keep(const Block& block) = 0;
  virtual RankHoldings holdings() const = 0;
};

// Of a rank that shares its process, and so its store, with rank 0; nothing has to be kept.
std::unique_ptr<RankBlocks> BlocksOfStore(BlockStore& store);
// Of a rank that has memory alone.
std::unique_ptr<RankBlocks> BlocksInMemory(uint64_t capacity_bytes);

}  // namespace corpusd
