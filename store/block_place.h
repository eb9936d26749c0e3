// store/block_place.h -- where a block is: in its chain, and on disk. Plain data, kept in the
// catalogue's chain entries (FORMAT.md).
#pragma once

#include <cstdint>

#include "store/prefix_hash.h"

namespace corpusd {

// A digest commits to its whole prefix, so its place in the chain is part of what it names. The
// group is the chain's first digest: blocks of one corpus have one group.
struct BlockPlace {
  Digest group;
  uint64_t position = 0;
};

struct BlockLocation {
  uint64_t extent = 0;
  uint32_t ordinal = 0;
  bool operator==(const BlockLocation&) const = default;
};

}  // namespace corpusd
