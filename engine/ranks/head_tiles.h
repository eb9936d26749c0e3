// engine/ranks/head_tiles.h -- a block whose KV heads lie with several ranks, and the whole block
// that a store keeps: the same tiles, in other places. Bytes of the host; any thread.
#pragma once

#include "engine/ranks/tensor_share.h"
#include "engine/ranks/transport.h"
#include "kernels/kv_format.h"

namespace corpusd {

// `whole` with the heads of a share only.
KvFormat FormatOfHeads(KvFormat whole, NumberRange heads);

// The tiles of the heads out of a whole block, and into it. part: FormatOfHeads(whole, heads).
void TakeHeads(std::span<std::byte> part, std::span<const std::byte> block, const KvFormat& whole,
               NumberRange heads);
void PlaceHeads(std::span<std::byte> block, std::span<const std::byte> part, const KvFormat& whole,
                NumberRange heads);

// What all ranks of a group call alike: the whole block at `root`, from the parts of those that
// keep their heads. block: of BlockBytes at the root, else not looked at.
Status GatherHeads(Transport& group, const TensorShare& share, uint32_t root, const KvFormat& whole,
                   std::span<const std::byte> part, std::span<std::byte> block);

}  // namespace corpusd
