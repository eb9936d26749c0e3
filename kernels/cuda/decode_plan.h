// kernels/cuda/decode_plan.h -- how decode attention is dealt over the thread blocks of a launch:
// the (head, tile) pairs, head by head, in equal runs. Plain arithmetic for host and device.
#pragma once

#include <cstdint>

#include "kernels/cuda/coded_tile.h"

namespace corpusd::cuda {

struct DecodePlan {
  int heads = 0, tiles = 0;  // tiles of one head
  int blocks = 0;            // thread blocks, at most heads * tiles

  CORPUSD_HOST_DEVICE int items() const { return heads * tiles; }
  // Block b works on items [Start(b), Start(b + 1)); item i is tile i % tiles of head i / tiles.
  CORPUSD_HOST_DEVICE int Start(int block) const {
    return static_cast<int>(static_cast<int64_t>(block) * items() / blocks);
  }
  // The block that holds the item.
  CORPUSD_HOST_DEVICE int BlockOf(int item) const {
    int block = static_cast<int>(static_cast<int64_t>(item) * blocks / items());
    while (Start(block + 1) <= item) ++block;  // the division may fall one short
    return block;
  }
  CORPUSD_HOST_DEVICE int FirstBlock(int head) const { return BlockOf(head * tiles); }
  CORPUSD_HOST_DEVICE int LastBlock(int head) const { return BlockOf((head + 1) * tiles - 1); }
};

}  // namespace corpusd::cuda
