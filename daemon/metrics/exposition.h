// daemon/metrics/exposition.h -- all metrics of a daemon for those who read them: as the text that
// Prometheus scrapes, and as a message of the socket protocol. May read the catalogue: not for the
// I/O thread; any other, many at once.
#pragma once

#include <string>

#include "daemon/rpc/call.h"
#include "daemon/rpc/services.h"
#include "store/base/result.h"

namespace corpusd {

// Text format 0.0.4: Content-Type kMetricsContentType. All, or what was counted alone.
std::string MetricsText(const Services& services);
std::string MetricsText(const DaemonMetrics& metrics);
inline constexpr const char* kMetricsContentType = "text/plain; version=0.0.4; charset=utf-8";

Result<v1::Response> HandleStats(const Services& services);

}  // namespace corpusd
