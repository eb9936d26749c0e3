// daemon/service_notify.h -- tells the service manager "READY=1" or "STOPPING=1" by one datagram to
// $NOTIFY_SOCKET, the protocol that sd_notify(3) documents. Without the variable it does nothing.
// Any thread.
#pragma once

#include <string_view>

#include "store/base/status.h"

namespace corpusd {

// kIoError if a socket is named and cannot be written to.
Status NotifyServiceManager(std::string_view state);

}  // namespace corpusd
