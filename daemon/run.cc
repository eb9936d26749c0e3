#include "daemon/run.h"

#include <google/protobuf/stubs/logging.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "daemon/config_check.h"
#include "daemon/daemon.h"
#include "daemon/log.h"
#include "daemon/rank_process.h"
#include "daemon/service_notify.h"
#include "daemon/shutdown.h"

namespace corpusd {
namespace {

constexpr int kExitFailed = 1, kExitUsage = 2;

std::vector<std::string> EnvironmentNames() {
  std::vector<std::string> names;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    names.emplace_back(text.substr(0, text.find('=')));
  }
  return names;
}

void Notify(std::string_view state) {
  const Status status = NotifyServiceManager(state);
  if (!status.ok()) Log(LogLevel::kWarn, "notify_failed", {{"error", status.message()}});
}

Status SendLog(const Options& options) {
  return options.log_file.empty() ? OkStatus() : SendLogTo(options.log_file);
}

// After a rotation has moved the file away.
void ReopenLog(const Options& options) {
  const Status sent = SendLog(options);
  if (!sent.ok()) return Log(LogLevel::kError, "log_reopen_failed", {{"error", sent.message()}});
  Log(LogLevel::kInfo, "log_reopened", {{"file", options.log_file}});
}

// Reads again what a running daemon can take anew. Any thread.
class Reload {
 public:
  // Whose; null: nobody's. Returns when no Run for the one before goes on.
  void Serve(Daemon* daemon) {
    const std::lock_guard lock(mutex_);
    daemon_ = daemon;
  }
  void Run() {
    const std::lock_guard lock(mutex_);
    if (daemon_ == nullptr) return;
    Notify("RELOADING=1");
    (void)daemon_->ReloadAccess();  // the log says what was wrong
    Notify("READY=1");
  }

 private:
  std::mutex mutex_;
  Daemon* daemon_ = nullptr;
};

int Serve(const Options& options) {
  if (const Status sent = SendLog(options); !sent.ok()) {
    std::fprintf(stderr, "corpusd: %s\n", sent.message().c_str());
    return kExitFailed;
  }
  OpenLog(options.log_level, options.log_format);
  // A broken frame is logged with its sender (rpc_connection.cc); the library's own line only adds
  // noise.
  google::protobuf::SetLogHandler(nullptr);
  Reload reload;
  ShutdownSignals signals([&options, &reload] {
    ReopenLog(options);
    reload.Run();
  });
  Options now = options;
  for (;;) {
    const auto daemon = Daemon::Open(now, [&signals](const Status& why) {
      Log(LogLevel::kError, "device_lost", {{"error", why.message()}});
      signals.Interrupt();
    });
    if (!daemon.ok()) {
      std::fprintf(stderr, "corpusd: %s\n", daemon.status().message().c_str());
      return kExitFailed;
    }
    std::printf("%s\n", (*daemon)->ReadyLine().c_str());
    std::fflush(stdout);
    Notify("READY=1");
    reload.Serve(daemon->get());
    const int signal = signals.Wait();
    Log(LogLevel::kInfo, "stopping", {{"signal", signal}, {"grace_ms", now.grace.count()}});
    reload.Serve(nullptr);
    if (signal != 0) Notify("STOPPING=1");
    (*daemon)->Shutdown(now.grace);
    if (signal != 0) return EXIT_SUCCESS;
    // The device is gone, its blocks are copies: the CPU goes on over the same folder.
    now.device = "cpu";
    now.rank_file.clear();
    now.device_bytes = 0;
  }
}

// A rank but the first: serves no clients.
int ServeRank(const Options& options) {
  if (const Status sent = SendLog(options); !sent.ok()) {
    std::fprintf(stderr, "corpusd: %s\n", sent.message().c_str());
    return kExitFailed;
  }
  OpenLog(options.log_level, options.log_format);
  ShutdownSignals signals([&options] { ReopenLog(options); });
  const auto rank = RankProcess::Start(options, [&signals] { signals.Interrupt(); });
  if (!rank.ok()) {
    std::fprintf(stderr, "corpusd: %s\n", rank.status().message().c_str());
    return kExitFailed;
  }
  std::printf("%s\n", (*rank)->ReadyLine().c_str());
  std::fflush(stdout);
  Notify("READY=1");
  (void)signals.Wait();
  Notify("STOPPING=1");
  const Status ended = (*rank)->Stop();
  if (ended.ok()) return EXIT_SUCCESS;
  std::fprintf(stderr, "corpusd: %s\n", ended.message().c_str());
  return kExitFailed;
}

// The values on stdout, what is wrong on stderr.
int PrintCheck(const LoadedOptions& loaded) {
  std::fputs(loaded.output.c_str(), stdout);
  std::vector<std::string> problems = loaded.problems;
  for (std::string& problem : CheckNamedFiles(loaded.options)) {
    problems.push_back(std::move(problem));
  }
  for (const std::string& problem : problems) {
    std::fprintf(stderr, "corpusd: %s\n", problem.c_str());
  }
  return problems.empty() ? EXIT_SUCCESS : kExitUsage;
}

}  // namespace

int RunCorpusd(const std::vector<std::string>& arguments) {
  const auto environment = [](const char* name) -> const char* { return std::getenv(name); };
  const auto loaded = LoadOptions(arguments, environment, EnvironmentNames());
  if (!loaded.ok()) {
    std::fprintf(stderr, "corpusd: %s\n", loaded.status().message().c_str());
    return kExitUsage;
  }
  if (loaded->action == CommandLine::Action::kCheckConfig) return PrintCheck(*loaded);
  if (loaded->action != CommandLine::Action::kRun) {
    std::fputs(loaded->output.c_str(), stdout);
    return EXIT_SUCCESS;
  }
  return loaded->options.rank > 0 ? ServeRank(loaded->options) : Serve(loaded->options);
}

}  // namespace corpusd
