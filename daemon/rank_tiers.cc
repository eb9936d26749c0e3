#include "daemon/rank_tiers.h"

#include <algorithm>
#include <map>
#include <string>

namespace corpusd {

namespace {

void AddTier(const char* tier, uint32_t rank, uint64_t used_bytes, uint64_t capacity_bytes,
             uint64_t pinned_bytes, std::vector<TierUsage>* tiers) {
  if (capacity_bytes == 0) return;
  TierUsage usage;
  usage.name = std::string(tier) + "@" + std::to_string(rank);
  usage.capacity_bytes = capacity_bytes;
  usage.used_bytes = used_bytes;
  usage.pinned_bytes = pinned_bytes;
  usage.free_bytes = capacity_bytes - std::min(used_bytes, capacity_bytes);
  tiers->push_back(std::move(usage));
}

}  // namespace

std::vector<TierUsage> AllTiers(const Services& services) {
  std::vector<TierUsage> tiers = services.store.Usage();
  const std::vector<RankStatus> ranks = services.engine.ranks().ranks;
  std::map<uint32_t, uint64_t> pinned;
  const bool disks = std::any_of(ranks.begin(), ranks.end(), [](const RankStatus& rank) {
    return rank.disk_capacity_bytes > 0;
  });
  if (disks) {
    const auto known = services.store.PinnedByShelf();  // of a catalogue that cannot be read: none
    if (known.ok()) pinned = *known;
    for (TierUsage& tier : tiers) {
      if (tier.name == "disk") tier.pinned_bytes = pinned[0];
    }
  }
  for (const RankStatus& rank : ranks) {
    AddTier("device", rank.rank, rank.device_used_bytes, rank.device_capacity_bytes, 0, &tiers);
    AddTier("host", rank.rank, rank.used_bytes, rank.capacity_bytes, 0, &tiers);
    AddTier("disk", rank.rank, rank.disk_used_bytes, rank.disk_capacity_bytes, pinned[rank.rank],
            &tiers);
  }
  return tiers;
}

}  // namespace corpusd
