// store/leased_prefetch.h -- a prefetch whose blocks are listed as a lease of whoever began it,
// from its beginning until it and the refs it gave out are gone. Same threads as the prefetch
// inside.
#pragma once

#include <memory>
#include <span>

#include "store/block_prefetch.h"
#include "store/lease_table.h"

namespace corpusd {

// digests: those that the prefetch inside was asked for.
std::unique_ptr<BlockPrefetch> WithLease(LeaseTable& leases, std::unique_ptr<BlockPrefetch> inside,
                                         std::span<const Digest> digests);

}  // namespace corpusd
