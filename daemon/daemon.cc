#include "daemon/daemon.h"

#include <utility>

#include "daemon/jobs/maintenance.h"
#include "daemon/log.h"
#include "daemon/service_notify.h"
#include "daemon/version.h"

namespace corpusd {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// Calls that touch the disk for moments, and those that may take minutes.
constexpr size_t kAdminThreads = 4, kAdminQueued = 4096;
constexpr size_t kSlowThreads = 2, kSlowQueued = 64;
// Tokenizing is bound by the CPU and shares it with prefill.
constexpr size_t kIngestThreads = 2, kIngestQueued = 256;
// Waiting questions per running one: beyond it a client should come again later.
constexpr size_t kQueuedPerQuery = 16;
// How often a read-only store looks whether it can write again, and overdue readers are looked for.
constexpr milliseconds kWatchInterval{2000};
// So long a scrub lets questions go before it reads one more block.
constexpr milliseconds kScrubPatience{250};
// Cancelled questions end at their next token; a client gets so long to take its last answers.
constexpr milliseconds kCancelPatience{5000};
constexpr milliseconds kFlushPatience{1000};

}  // namespace

int64_t Daemon::SystemNowMs() {
  return std::chrono::duration_cast<milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

Daemon::Daemon(const Options& options, std::unique_ptr<BlockStore> store,
               std::unique_ptr<Engine> engine, const NowMs& now_ms,
               std::unique_ptr<DaemonMetrics> metrics)
    : options_(options),
      now_ms_(now_ms),
      metrics_(std::move(metrics)),
      store_(std::move(store)),
      engine_(std::move(engine)),
      jobs_(*engine_, *store_, QueueOptions(), now_ms),
      queries_("query", options.queries_max, options.queries_max * kQueuedPerQuery),
      admin_("admin", kAdminThreads, kAdminQueued),
      slow_("slow", kSlowThreads, kSlowQueued),
      ingest_("ingest", kIngestThreads, kIngestQueued),
      services_{options_,  access_,  *store_, *engine_, jobs_,   timers_,
                queries_,  admin_,   slow_,   ingest_,  now_ms_, steady_clock::now(),
                stopping_, *metrics_},
      http_(services_) {}

Daemon::~Daemon() { Shutdown(milliseconds::zero()); }

Result<std::unique_ptr<Daemon>> Daemon::Start(const Options& options,
                                              std::unique_ptr<BlockStore> store,
                                              std::unique_ptr<Engine> engine, const NowMs& now_ms,
                                              std::unique_ptr<DaemonMetrics> metrics,
                                              const PeerProvider& peer_of) {
  if (metrics == nullptr) metrics = std::make_unique<DaemonMetrics>();
  std::unique_ptr<Daemon> daemon(
      new Daemon(options, std::move(store), std::move(engine), now_ms, std::move(metrics)));
  RETURN_IF_ERROR(daemon->access_.Open(options.access_path, TenantQuotaBytes(options)));
  // The socket first: a daemon that cannot be reached should not begin to compute.
  RETURN_IF_ERROR(daemon->StartListening(peer_of));
  RETURN_IF_ERROR(daemon->StartHttp(peer_of));
  daemon->jobs_.Start();
  daemon->LoadIndexes();
  daemon->ScheduleMaintenance();
  daemon->ScheduleWatch();
  daemon->ScheduleWatchdog();
  return daemon;
}

Status Daemon::ReloadAccess() {
  const Status status = access_.Reload();
  if (status.ok()) {
    Log(LogLevel::kInfo, "access_reloaded", {{"path", options_.access_path}});
  } else {
    Log(LogLevel::kError, "access_not_reloaded", {{"error", status.message()}});
  }
  return status;
}

Status Daemon::StartListening(const PeerProvider& peer_of) {
  ListenerOptions listener;
  listener.socket_path = options_.socket_path;
  listener.socket_mode = options_.socket_mode;
  listener.connections_max = options_.connections_max;
  listener.connection.frame_bytes_max = options_.frame_bytes_max;
  listener.connection.peer_of = peer_of;
  ASSIGN_OR_RETURN(listener_, UnixListener::Open(listener, services_));
  return OkStatus();
}

Status Daemon::StartHttp(const PeerProvider& peer_of) {
  if (options_.http.empty()) return OkStatus();
  HttpListenerOptions listener;
  listener.addresses = options_.http;
  listener.socket_mode = options_.socket_mode;
  listener.connections_max = options_.http_connections_max;
  listener.connection.peer_of = peer_of;
  listener.connection.header_timeout = options_.http_header_timeout;
  listener.connection.body_timeout = options_.http_body_timeout;
  listener.connection.idle_timeout = options_.http_idle_timeout;
  ASSIGN_OR_RETURN(http_listener_, HttpListener::Open(listener, http_));
  return OkStatus();
}

std::vector<std::string> Daemon::HttpAddresses() const {
  return http_listener_ == nullptr ? std::vector<std::string>() : http_listener_->addresses();
}

JobQueueOptions Daemon::QueueOptions() {
  JobQueueOptions options;
  // For a moment each: a daemon that is always asked must be scrubbed as well.
  options.yield = [this](const std::stop_token& /*stop*/) {
    (void)queries_.WaitIdle(steady_clock::now() + kScrubPatience);
  };
  options.on_ended = [this](const JobRecord& job) { metrics_->OnJobEnded(job); };
  return options;
}

void Daemon::LoadIndexes() {
  slow_.Submit([this] {
    const auto start = steady_clock::now();
    const Result<uint64_t> loaded = engine_->LoadIndexes(background_.get_token());
    if (!loaded.ok()) {
      // Whoever asks loads what he needs.
      return Log(LogLevel::kInfo, "indexes_not_loaded", {{"error", loaded.status().message()}});
    }
    const std::chrono::duration<double> spent = steady_clock::now() - start;
    if (*loaded == 0) return;
    Log(LogLevel::kInfo, "indexes_loaded", {{"corpora", *loaded}, {"seconds", spent.count()}});
  });
}

void Daemon::ScheduleMaintenance() {
  const milliseconds wait = UntilNextExpiry(*store_, now_ms_(), kMaintenanceInterval);
  timers_.Schedule(steady_clock::now() + wait, [this] {
    slow_.Submit([this] {
      ExpireCorpora(*store_, jobs_, now_ms_());
      ScrubWhenDue(*store_, jobs_, options_.scrub_interval_ms, options_.scrub_bytes_per_s,
                   now_ms_());
    });
    ScheduleMaintenance();
  });
}

void Daemon::ScheduleWatch() {
  timers_.Schedule(steady_clock::now() + kWatchInterval, [this] {
    admin_.Submit([this] {
      WatchStore(*store_, jobs_, now_ms_());
      access_.audit().Flush();
    });
    ScheduleWatch();
  });
}

void Daemon::ScheduleWatchdog() {
  const milliseconds interval = WatchdogInterval();
  if (interval == milliseconds::zero()) return;
  timers_.Schedule(steady_clock::now() + interval, [this] {
    // By the threads that answer short calls: a daemon in which those hang should be started anew.
    admin_.Submit([] { (void)NotifyServiceManager("WATCHDOG=1"); });
    ScheduleWatchdog();
  });
}

std::string Daemon::ReadyLine() const {
  const ModelSummary& model = engine_->model();
  std::string http;
  for (const std::string& address : HttpAddresses()) http += ", http " + address;
  return "corpusd " + std::string(kVersion) + " ready: socket " + options_.socket_path + http +
         ", model " + model.name + ", backend " + model.backend + ", " +
         std::to_string(store_->ListCorpora().size()) + " corpora";
}

void Daemon::Shutdown(milliseconds grace) {
  if (std::exchange(shut_down_, true)) return;
  const auto begin = steady_clock::now();
  stopping_ = true;
  background_.request_stop();
  jobs_.RequestStop();
  if (listener_ != nullptr) {
    const Status why = UnavailableError("the daemon is stopping; try again when it runs");
    listener_->StopAccepting();
    if (http_listener_ != nullptr) http_listener_->StopAccepting();
    const bool idle = queries_.WaitIdle(begin + grace);
    listener_->CancelCalls(why);
    if (http_listener_ != nullptr) http_listener_->CancelCalls(why);
    queries_.WaitIdle(steady_clock::now() + kCancelPatience);
    jobs_.Stop();
    listener_->Close(kFlushPatience);
    if (http_listener_ != nullptr) http_listener_->Close(kFlushPatience);
    Log(LogLevel::kInfo, "stopped", {{"questions_cancelled", !idle}});
  }
  jobs_.Stop();
  for (WorkerPool* pool : {&queries_, &admin_, &slow_, &ingest_}) pool->Stop();
  timers_.Stop();
}

}  // namespace corpusd
