#include "store/host_tier.h"

#include "store/base/units.h"

namespace corpusd {

HostBlock::HostBlock(const Digest& digest, uint32_t tokens, std::span<std::byte> memory,
                     std::shared_ptr<HostArena> arena, TierCharge charge)
    : TierBlock(digest, tokens),
      memory_(memory),
      arena_(std::move(arena)),
      charge_(std::move(charge)) {}

HostBlock::~HostBlock() {
  arena_->Free(memory_.data(), memory_.size());
  charge_->fetch_sub(charged_bytes());
}

std::span<const std::byte> BlockRef::bytes() const { return block_->bytes(); }
uint32_t BlockRef::tokens() const { return block_->tokens(); }
const Digest& BlockRef::digest() const { return block_->digest(); }
BlockRef BlockRef::HeldBy(const std::shared_ptr<const void>& holder) const {
  return BlockRef(std::shared_ptr<const HostBlock>(holder, block_.get()));
}

HostTier::HostTier(uint64_t capacity_bytes, HostArena::RunLater run_later,
                   std::shared_ptr<DeviceMemory> device)
    : table_("host", "--host-bytes", capacity_bytes) {
  auto arena = HostArena::Create({capacity_bytes, std::move(run_later), std::move(device)});
  no_arena_ = arena.status();
  if (arena.ok()) arena_ = std::move(*arena);
}

void HostTier::TouchAll() {
  if (arena_ != nullptr) arena_->TouchAll();
}

HostArena::Usage HostTier::ArenaUsage() const {
  return arena_ == nullptr ? HostArena::Usage{} : arena_->usage();
}

BlockRef HostTier::Find(const Digest& digest) {
  return BlockRef(std::static_pointer_cast<HostBlock>(table_.Find(digest)));
}

Result<std::shared_ptr<HostBlock>> HostTier::Allocate(const Request& request) {
  std::byte* const memory = arena_ == nullptr ? nullptr : arena_->Allocate(request.bytes);
  if (memory != nullptr) {
    return std::make_shared<HostBlock>(request.digest, request.tokens,
                                       std::span(memory, request.bytes), arena_, table_.charge());
  }
  table_.charge()->fetch_sub(HostArena::WholePages(request.bytes));
  RETURN_IF_ERROR(no_arena_);
  return ResourceExhaustedError("the host tier has no " + FormatBytes(request.bytes) +
                                " in one piece for a block");
}

Result<std::vector<std::shared_ptr<HostBlock>>> HostTier::Reserve(
    std::span<const Request> requests) {
  uint64_t needed_bytes = 0;
  for (const Request& request : requests) needed_bytes += HostArena::WholePages(request.bytes);
  RETURN_IF_ERROR(table_.Charge(needed_bytes, requests.size()));
  std::vector<std::shared_ptr<HostBlock>> blocks;
  blocks.reserve(requests.size());
  for (const Request& request : requests) {
    needed_bytes -= HostArena::WholePages(request.bytes);
    auto block = Allocate(request);
    if (!block.ok()) {
      table_.charge()->fetch_sub(needed_bytes);
      return block.status();
    }
    blocks.push_back(std::move(*block));
  }
  return blocks;
}

std::shared_ptr<HostBlock> HostTier::ReserveFree(const Request& request) {
  if (!table_.ChargeFree(HostArena::WholePages(request.bytes))) return nullptr;
  auto block = Allocate(request);
  return block.ok() ? *block : nullptr;
}

BlockRef HostTier::Insert(std::shared_ptr<HostBlock> block, const BlockPlace& place) {
  return BlockRef(std::static_pointer_cast<HostBlock>(table_.Insert(std::move(block), place)));
}

}  // namespace corpusd
