#include "engine/ranks/head_tiles.h"

#include <cstring>

#include "store/base/check.h"

namespace corpusd {
namespace {

// Calls visit(place in the whole block, place in the part, bytes) for every run of tiles.
template <typename Visit>
void ForEachRun(const KvFormat& whole, NumberRange heads, const Visit& visit) {
  const KvFormat part = FormatOfHeads(whole, heads);
  for (uint32_t layer = 0; layer < whole.layers; ++layer) {
    visit(whole.KeyTileOffset(layer, heads.first), part.KeyTileOffset(layer, 0),
          heads.count * whole.KeyTileBytes(layer));
    visit(whole.ValueTileOffset(layer, heads.first), part.ValueTileOffset(layer, 0),
          heads.count * whole.ValueTileBytes(layer));
  }
}

}  // namespace

KvFormat FormatOfHeads(KvFormat whole, NumberRange heads) {
  CHECK(heads.end() <= whole.kv_heads) << heads.end() << " of " << whole.kv_heads;
  whole.kv_heads = heads.count;
  return whole;
}

void TakeHeads(std::span<std::byte> part, std::span<const std::byte> block, const KvFormat& whole,
               NumberRange heads) {
  CHECK(part.size() == FormatOfHeads(whole, heads).BlockBytes() &&
        block.size() == whole.BlockBytes())
      << part.size() << " of " << block.size();
  ForEachRun(whole, heads, [&](uint64_t in_block, uint64_t in_part, uint64_t bytes) {
    std::memcpy(part.data() + in_part, block.data() + in_block, bytes);
  });
}

void PlaceHeads(std::span<std::byte> block, std::span<const std::byte> part, const KvFormat& whole,
                NumberRange heads) {
  CHECK(part.size() == FormatOfHeads(whole, heads).BlockBytes() &&
        block.size() == whole.BlockBytes())
      << part.size() << " of " << block.size();
  ForEachRun(whole, heads, [&](uint64_t in_block, uint64_t in_part, uint64_t bytes) {
    std::memcpy(block.data() + in_block, part.data() + in_part, bytes);
  });
}

Status GatherHeads(Transport& group, const TensorShare& share, uint32_t root, const KvFormat& whole,
                   std::span<const std::byte> part, std::span<std::byte> block) {
  if (group.rank() != root) {
    return share.KeepsKvHeads() ? group.Send(root, part)->Wait() : OkStatus();
  }
  std::vector<TransferPtr> transfers;
  std::vector<std::vector<std::byte>> parts(share.ranks());
  std::vector<NumberRange> heads(share.ranks());
  for (uint32_t r = 0; r < share.ranks(); ++r) {
    ASSIGN_OR_RETURN(const TensorShare theirs, TensorShare::Make(share.whole(), r, share.ranks()));
    if (!theirs.KeepsKvHeads()) continue;
    heads[r] = theirs.kv_heads();
    if (r == root) {
      parts[r].assign(part.begin(), part.end());
      continue;
    }
    parts[r].resize(FormatOfHeads(whole, heads[r]).BlockBytes());
    transfers.push_back(group.Receive(r, parts[r]));
  }
  RETURN_IF_ERROR(WaitAll(transfers));
  for (uint32_t r = 0; r < share.ranks(); ++r) {
    if (heads[r].count > 0) PlaceHeads(block, parts[r], whole, heads[r]);
  }
  return OkStatus();
}

}  // namespace corpusd
