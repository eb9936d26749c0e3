// daemon/metrics/service_gauges.h -- what the daemon can say of itself at any moment: room in the
// tiers, queues, jobs, corpora, leases. Read when asked and kept nowhere. May read the catalogue,
// so not for the I/O thread; any other.
#pragma once

#include <vector>

#include "daemon/rpc/services.h"

namespace prometheus {
struct MetricFamily;
}  // namespace prometheus

namespace corpusd {

std::vector<prometheus::MetricFamily> ServiceGauges(const Services& services);

}  // namespace corpusd
