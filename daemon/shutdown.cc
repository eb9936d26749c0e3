#include "daemon/shutdown.h"

#include <pthread.h>
#include <unistd.h>

#include <csignal>
#include <utility>

namespace corpusd {
namespace {

// Wakes the listening thread to end it.
constexpr int kWakeSignal = SIGUSR1;

sigset_t WaitedSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGHUP);
  sigaddset(&signals, kWakeSignal);
  return signals;
}

}  // namespace

ShutdownSignals::ShutdownSignals(std::function<void()> on_hangup)
    : on_hangup_(std::move(on_hangup)) {
  const sigset_t signals = WaitedSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  thread_ = std::jthread([this] { Listen(); });
}

ShutdownSignals::~ShutdownSignals() { pthread_kill(thread_.native_handle(), kWakeSignal); }

void ShutdownSignals::Listen() {
  const sigset_t signals = WaitedSignals();
  for (;;) {
    int signal = 0;
    if (sigwait(&signals, &signal) != 0) continue;
    if (signal == kWakeSignal) return;
    if (signal == SIGHUP) {
      if (on_hangup_) on_hangup_();
      continue;
    }
    {
      std::lock_guard lock(mutex_);
      if (first_signal_ != 0) _exit(128 + signal);
      first_signal_ = signal;
    }
    came_.notify_all();
  }
}

int ShutdownSignals::Wait() {
  std::unique_lock lock(mutex_);
  came_.wait(lock, [&] { return first_signal_ != 0; });
  return first_signal_;
}

}  // namespace corpusd
