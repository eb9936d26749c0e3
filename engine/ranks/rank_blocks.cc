#include "engine/ranks/rank_blocks.h"

#include <algorithm>

#include "store/device_tier.h"
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
  RankDropped Drop(std::span<const Digest> /*digests*/, bool /*dry_run*/) override { return {}; }

 private:
  BlockStore& store_;
};

class MemoryBlocks final : public RankBlocks {
 public:
  MemoryBlocks(uint64_t capacity_bytes, std::shared_ptr<DeviceMemory> device)
      : tier_(capacity_bytes, nullptr, std::move(device)) {}

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
  RankDropped Drop(std::span<const Digest> digests, bool dry_run) override {
    const auto [blocks, bytes] = tier_.Drop(digests, dry_run);
    return {blocks, bytes};
  }

 private:
  HostTier tier_;
};

// Copies of their own: parts of layers that see little are few, and differ by where a text ends.
Result<HeldBlock> CopyTo(Backend& backend, const BlockRef& ref) {
  const auto bytes = ref.bytes();
  ASSIGN_OR_RETURN(std::shared_ptr<Buffer> copy,
                   backend.Allocate(bytes.size(), "pages that few tokens see"));
  RETURN_IF_ERROR(backend.Copy(copy->data(), bytes.data(), bytes.size()));
  return HeldBlock(std::move(copy));
}

class HostHolder final : public BlockHolder {
 public:
  std::vector<HeldBlock> Find(std::span<const Digest> digests) override {
    return std::vector<HeldBlock>(digests.size());
  }
  Result<std::vector<HeldBlock>> Hold(std::span<const Block> blocks) override {
    std::vector<HeldBlock> held;
    for (const Block& block : blocks) held.emplace_back(block.ref);
    return held;
  }
};

class StoreHolder final : public BlockHolder {
 public:
  StoreHolder(Backend& backend, BlockStore& store) : backend_(backend), store_(store) {}

  std::vector<HeldBlock> Find(std::span<const Digest> digests) override {
    std::vector<HeldBlock> held;
    for (DeviceRef& ref : store_.OnDevice(digests)) {
      held.emplace_back(ref.held == nullptr ? HeldBlock() : HeldBlock(std::move(ref)));
    }
    return held;
  }
  Result<std::vector<HeldBlock>> Hold(std::span<const Block> blocks) override {
    std::vector<HeldBlock> held(blocks.size());
    std::vector<size_t> wanted;
    std::vector<Digest> digests;
    std::vector<BlockRef> refs;
    for (size_t i = 0; i < blocks.size(); ++i) {
      if (!blocks[i].whole) {
        ASSIGN_OR_RETURN(held[i], CopyTo(backend_, blocks[i].ref));
        continue;
      }
      wanted.push_back(i);
      digests.push_back(blocks[i].ref.digest());
      refs.push_back(blocks[i].ref);
    }
    if (wanted.empty()) return held;
    RETURN_IF_ERROR(store_.PromoteToDevice(digests, refs, {}).status());
    auto there = Find(digests);
    for (size_t i = 0; i < wanted.size(); ++i) {
      if (!there[i].valid()) {
        return ResourceExhaustedError("the device tier let go of a block of a question at once");
      }
      held[wanted[i]] = std::move(there[i]);
    }
    return held;
  }

 private:
  Backend& backend_;
  BlockStore& store_;
};

class DeviceHolder final : public BlockHolder {
 public:
  DeviceHolder(Backend& backend, const DeviceRoom& room)
      : backend_(backend), tier_(room.memory, room.bytes) {}

  std::vector<HeldBlock> Find(std::span<const Digest> digests) override {
    tier_.table().NoteUse(digests, kCorrelatedMs);
    std::vector<HeldBlock> held;
    for (const Digest& digest : digests) held.push_back(HeldOf(tier_.Find(digest)));
    return held;
  }
  Result<std::vector<HeldBlock>> Hold(std::span<const Block> blocks) override {
    std::vector<HeldBlock> held;
    for (const Block& block : blocks) {
      if (!block.whole) {
        ASSIGN_OR_RETURN(held.emplace_back(), CopyTo(backend_, block.ref));
        continue;
      }
      const BlockHeader header = MakeBlockHeader(block.ref.digest(), block.ref.tokens(),
                                                 block.ref.bytes(), block.sections);
      ASSIGN_OR_RETURN(auto there, tier_.Put(header, block.place, block.ref.bytes()));
      held.push_back(HeldOf(std::move(there)));
    }
    return held;
  }
  std::pair<uint64_t, uint64_t> used_of_bytes() const override {
    return {tier_.table().used_bytes(), tier_.table().capacity_bytes()};
  }

 private:
  static HeldBlock HeldOf(std::shared_ptr<DeviceBlock> block) {
    if (block == nullptr) return HeldBlock();
    DeviceRef ref;
    ref.address = block->address();
    ref.tokens = block->tokens();
    ref.bytes = block->payload_bytes();
    ref.held = std::move(block);
    return HeldBlock(std::move(ref));
  }

  Backend& backend_;
  DeviceTier tier_;
};

}  // namespace

std::unique_ptr<RankBlocks> BlocksOfStore(BlockStore& store) {
  return std::make_unique<StoreBlocks>(store);
}

std::unique_ptr<RankBlocks> BlocksInMemory(uint64_t capacity_bytes,
                                           std::shared_ptr<DeviceMemory> device) {
  return std::make_unique<MemoryBlocks>(capacity_bytes, std::move(device));
}

std::unique_ptr<BlockHolder> HoldInHost() { return std::make_unique<HostHolder>(); }

std::unique_ptr<BlockHolder> HoldByStore(Backend& backend, BlockStore& store) {
  return std::make_unique<StoreHolder>(backend, store);
}

std::unique_ptr<BlockHolder> HoldOnDevice(Backend& backend, const DeviceRoom& room) {
  return std::make_unique<DeviceHolder>(backend, room);
}

Status HostCopies::Bring(std::span<std::span<const std::byte>*> bytes) {
  if (backend_.host_addressable()) return OkStatus();
  uint64_t all = 0;
  for (const auto* one : bytes) all += one->size();
  if (all == 0) return OkStatus();
  if (memory_ == nullptr || memory_->bytes() < all) {
    memory_.reset();
    ASSIGN_OR_RETURN(memory_, backend_.AllocateShared(all, "blocks to store"));
  }
  std::vector<CopyPiece> pieces;
  std::byte* to = memory_->data();
  for (auto* one : bytes) {
    if (one->empty()) continue;
    pieces.push_back({to, one->data(), one->size()});
    *one = {to, one->size()};
    to += pieces.back().bytes;
  }
  return backend_.CopyBeside(pieces);
}

}  // namespace corpusd
