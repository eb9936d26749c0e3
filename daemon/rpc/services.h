// daemon/rpc/services.h -- what handlers work with: made and owned by the daemon, lent to every
// call. The parts are thread-safe; the struct does not change after the start.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>

#include "daemon/access/access_control.h"
#include "daemon/jobs/job_queue.h"
#include "daemon/options.h"
#include "daemon/timer_queue.h"
#include "daemon/worker_pool.h"
#include "engine/engine.h"
#include "store/block_store.h"

namespace corpusd {

class DaemonMetrics;  // daemon/metrics/daemon_metrics.h

struct Services {
  const Options& options;
  const AccessControl& access;
  BlockStore& store;
  Engine& engine;
  JobQueue& jobs;
  TimerQueue& timers;
  WorkerPool& queries;  // questions
  WorkerPool& admin;    // short calls that may touch the disk
  WorkerPool& slow;     // verify, warm, remove: long, so they never hold up the short ones
  WorkerPool& ingest;   // tokenizing
  std::function<int64_t()> now_ms;
  std::chrono::steady_clock::time_point started_at;
  std::atomic<bool>& stopping;
  DaemonMetrics& metrics;
};

}  // namespace corpusd
