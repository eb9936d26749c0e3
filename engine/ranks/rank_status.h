// engine/ranks/rank_status.h -- where the ranks of a daemon stand, for people and metrics. Plain
// data.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace corpusd {

struct RankStatus {
  uint32_t rank = 0;
  std::string name;   // "thread 1", "10.0.0.3:9000"
  std::string state;  // "leads", "follows", "weights": it has nothing else; "missing"
  std::string error;  // of the last that was lost: why
  // Blocks that a rank without a store of its own has in memory.
  uint64_t used_bytes = 0, capacity_bytes = 0;
  // Of them, copies on a device of any rank but the first.
  uint64_t device_used_bytes = 0, device_capacity_bytes = 0;
  // Of the disk that it keeps blocks on; none: it is away.
  uint64_t disk_used_bytes = 0, disk_capacity_bytes = 0;
  // Of the weights, where ranks share them; 0: all, or not known.
  uint64_t weight_bytes = 0;
};

struct RanksReport {
  std::vector<RankStatus> ranks;  // none: the daemon computes alone by design
  uint64_t groups = 0;            // formed so far
  uint64_t lost = 0;              // of them, how many ended by a lost rank
  uint64_t passes = 0;            // that their ranks computed together
};

}  // namespace corpusd
