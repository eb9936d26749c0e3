#include "daemon/rank_tiers.h"

#include <algorithm>
#include <string>

namespace corpusd {

namespace {

void AddTier(const char* tier, uint32_t rank, uint64_t used_bytes, uint64_t capacity_bytes,
             std::vector<TierUsage>* tiers) {
  if (capacity_bytes == 0) return;
  TierUsage usage;
  usage.name = std::string(tier) + "@" + std::to_string(rank);
  usage.capacity_bytes = capacity_bytes;
  usage.used_bytes = used_bytes;
  usage.free_bytes = capacity_bytes - std::min(used_bytes, capacity_bytes);
  tiers->push_back(std::move(usage));
}

}  // namespace

std::vector<TierUsage> AllTiers(const Services& services) {
  std::vector<TierUsage> tiers = services.store.Usage();
  for (const RankStatus& rank : services.engine.ranks().ranks) {
    AddTier("device", rank.rank, rank.device_used_bytes, rank.device_capacity_bytes, &tiers);
    AddTier("host", rank.rank, rank.used_bytes, rank.capacity_bytes, &tiers);
    AddTier("disk", rank.rank, rank.disk_used_bytes, rank.disk_capacity_bytes, &tiers);
  }
  return tiers;
}

}  // namespace corpusd
