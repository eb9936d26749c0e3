// daemon/jobs/maintenance.h -- housekeeping by the clock: corpora whose time is over go (blocks,
// tokens and name; the log and the store's eviction notes remember them), pins whose time is over
// end. One pass a call; the daemon's timer makes it regular. Any thread.
#pragma once

#include <chrono>
#include <cstdint>

#include "daemon/jobs/job_queue.h"
#include "store/block_store.h"

namespace corpusd {

// Corpora and pins end within this much of their time, and most within a second.
inline constexpr std::chrono::milliseconds kMaintenanceInterval{15000};

struct MaintenanceReport {
  uint64_t removed_corpora = 0;
  uint64_t ended_pins = 0;
};

// How long until the next corpus or pin ends, between one second and at_most.
std::chrono::milliseconds UntilNextExpiry(const BlockStore& store, int64_t now_ms,
                                          std::chrono::milliseconds at_most);

// Lets a read-only store look whether it can write again; if it can, evicts what is above the disk
// tier's high watermark and lets failed prefills be tried again. Asks readers whose time is over to
// let their blocks go.
void WatchStore(BlockStore& store, JobQueue& jobs, int64_t now_ms);

// A pinned corpus and one with an unfinished job stay, whatever their time.
MaintenanceReport ExpireCorpora(BlockStore& store, const JobQueue& jobs, int64_t now_ms);

// Begins a scrub if the last one ended longer ago than the interval (0: never). An empty store
// needs none.
void ScrubWhenDue(const BlockStore& store, JobQueue& jobs, int64_t interval_ms,
                  uint64_t bytes_per_s, int64_t now_ms);

}  // namespace corpusd
