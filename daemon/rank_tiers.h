// daemon/rank_tiers.h -- the tiers of the store and those of ranks that have memory of their own,
// as one list. Any thread.
#pragma once

#include <vector>

#include "daemon/rpc/services.h"

namespace corpusd {

// "device@1", "host@1", "disk@1": the device, the memory and the disk for blocks of rank 1.
std::vector<TierUsage> AllTiers(const Services& services);

}  // namespace corpusd
