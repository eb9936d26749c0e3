// daemon/jobs/maintenance.h -- housekeeping by the clock: corpora whose time is over go, pins whose
// time is over end. One pass a call; the daemon's timer makes it regular. Any thread.
#pragma once

#include <cstdint>

#include "daemon/jobs/job_queue.h"
#include "store/block_store.h"

namespace corpusd {

struct MaintenanceReport {
  uint64_t removed_corpora = 0;
  uint64_t ended_pins = 0;
};

// A pinned corpus and one with an unfinished job stay, whatever their time.
MaintenanceReport ExpireCorpora(BlockStore& store, const JobQueue& jobs, int64_t now_ms);

}  // namespace corpusd
