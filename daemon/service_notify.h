// daemon/service_notify.h -- tells the service manager "READY=1", "STOPPING=1" or "WATCHDOG=1" by
// one datagram to $NOTIFY_SOCKET, the protocol that sd_notify(3) documents. Without the variable it
// does nothing. Any thread.
#pragma once

#include <chrono>
#include <string_view>

#include "store/base/status.h"

namespace corpusd {

// kIoError if a socket is named and cannot be written to.
Status NotifyServiceManager(std::string_view state);
// How often the service manager wants to hear "WATCHDOG=1": half of what it waits for
// (sd_watchdog_enabled(3)). 0: never.
std::chrono::milliseconds WatchdogInterval();

}  // namespace corpusd
