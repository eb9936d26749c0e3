// daemon/daemon.h -- Daemon: the composition root. Everything is made here, in order, and passed
// down; nothing is global. Owns all of it. Start and Shutdown on one thread.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include "daemon/access/access_control.h"
#include "daemon/http/http_service.h"
#include "daemon/jobs/job_queue.h"
#include "daemon/metrics/daemon_metrics.h"
#include "daemon/net/http_listener.h"
#include "daemon/net/unix_listener.h"
#include "daemon/options.h"
#include "daemon/rpc/peer.h"
#include "daemon/rpc/services.h"
#include "daemon/timer_queue.h"
#include "daemon/worker_pool.h"
#include "engine/engine.h"
#include "store/block_store.h"

namespace corpusd {

class Daemon {
 public:
  // Wall clock in Unix milliseconds; tests bring their own.
  using NowMs = std::function<int64_t()>;
  static int64_t SystemNowMs();

  // Opens the data folder and the model that the options name, then starts (daemon_open.cc).
  // on_device_lost: as in EngineOptions.
  static Result<std::unique_ptr<Daemon>> Open(
      const Options& options, std::function<void(const Status& why)> on_device_lost = {});
  // Starts over a store and an engine: unfinished jobs go on, the socket listens when this returns.
  // metrics: whom both tell; null: those of the daemon alone. peer_of: who is at the other end of a
  // connection; tests make up their own.
  using PeerProvider = std::function<Peer(int descriptor)>;
  static Result<std::unique_ptr<Daemon>> Start(const Options& options,
                                               std::unique_ptr<BlockStore> store,
                                               std::unique_ptr<Engine> engine,
                                               const NowMs& now_ms = SystemNowMs,
                                               std::unique_ptr<DaemonMetrics> metrics = nullptr,
                                               const PeerProvider& peer_of = PeerOf);
  // Shuts down without grace if Shutdown was not called.
  ~Daemon();
  Daemon(const Daemon&) = delete;
  Daemon& operator=(const Daemon&) = delete;

  // "corpusd 0.1.0 ready: socket ..., model ..., backend ..., 3 corpora"
  std::string ReadyLine() const;
  // Reads the access table again. If it is wrong, the one before stays.
  Status ReloadAccess();
  // Where HTTP is spoken, with the ports that were given; none if it is off.
  std::vector<std::string> HttpAddresses() const;
  // No new clients; the running prefill stops at its next checkpoint; questions may end within the
  // grace, then they are cancelled; every connection is closed. Returns when all threads but this
  // one are still.
  void Shutdown(std::chrono::milliseconds grace);

 private:
  Daemon(const Options& options, std::unique_ptr<BlockStore> store, std::unique_ptr<Engine> engine,
         const NowMs& now_ms, std::unique_ptr<DaemonMetrics> metrics);
  Status StartListening(const PeerProvider& peer_of);
  Status StartHttp(const PeerProvider& peer_of);
  // In the background, as long as it takes.
  void LoadIndexes();
  void ScheduleMaintenance();
  void ScheduleWatch();
  void ScheduleWatchdog();
  JobQueueOptions QueueOptions();

  // Destroyed from the last to the first: calls of the listener may cancel timers to the very end.
  const Options options_;
  const NowMs now_ms_;
  std::atomic<bool> stopping_{false};
  bool shut_down_ = false;
  std::stop_source background_;  // of what nobody waits for
  AccessControl access_;
  TimerQueue timers_;
  std::unique_ptr<DaemonMetrics> metrics_;
  std::unique_ptr<BlockStore> store_;
  std::unique_ptr<Engine> engine_;
  JobQueue jobs_;
  WorkerPool queries_;
  WorkerPool admin_;
  WorkerPool slow_;
  WorkerPool ingest_;
  Services services_;
  std::unique_ptr<UnixListener> listener_;
  HttpService http_;
  std::unique_ptr<HttpListener> http_listener_;  // null: HTTP is off
};

}  // namespace corpusd
