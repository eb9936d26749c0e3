#include "engine/ranks/rank_blocks.h"

#include <algorithm>

#include "store/host_tier.h"

namespace corpusd {
namespace {

// How a block that a rank attends to counts for what leaves its memory next.
constexpr int64_t kCorrelatedMs = 60'000;

class StoreBlocks final : public RankBlocks {
 public:
  explicit StoreBlocks(BlockStore& store) : store_(store) {}

  Result<std::vector<BlockRef>> Find(std::span<const Digest> digests) override {
    FetchStats stats;
    return store_.Fetch(digests, &stats);
  }
  bool keeps() const override { return false; }
  Result<BlockRef> Keep(const Block& block) override {
    return CorruptionError("block " + block.digest.Hex().substr(0, 12) +
                           " is not in the store that its ranks share");
  }
  // The store tells of its tiers itself.
  RankHoldings holdings() const override { return {}; }

 private:
  BlockStore& store_;
};

class MemoryBlocks final : public RankBlocks {
 public:
  explicit MemoryBlocks(uint64_t capacity_bytes) : tier_(capacity_bytes) {}

  Result<std::vector<BlockRef>> Find(std::span<const Digest> digests) override {
    tier_.NoteUse(digests, kCorrelatedMs);
    std::vector<BlockRef> refs;
    for (const Digest& digest : digests) refs.push_back(tier_.Find(digest));
    return refs;
  }
  bool keeps() const override { return true; }
  Result<BlockRef> Keep(const Block& block) override {
    const HostTier::Request request{block.digest, block.tokens, block.bytes.size()};
    ASSIGN_OR_RETURN(const auto reserved, tier_.Reserve({&request, 1}));
    std::copy(block.bytes.begin(), block.bytes.end(), reserved.front()->bytes().begin());
    return tier_.Insert(reserved.front(), block.place);
  }
  RankHoldings holdings() const override { return {0, tier_.used_bytes(), tier_.capacity_bytes()}; }

 private:
  HostTier tier_;
};

}  // namespace

std::unique_ptr<RankBlocks> BlocksOfStore(BlockStore& store) {
  return std::make_unique<StoreBlocks>(store);
}

std::unique_ptr<RankBlocks> BlocksInMemory(uint64_t capacity_bytes) {
  return std::make_unique<MemoryBlocks>(capacity_bytes);
}

}  // namespace corpusd
