// engine/ranks/in_process_transport.h -- ranks that are threads of one process: a message is copied
// once, by whoever comes second. For tests, and for several devices of one process whose bytes the
// host can address. Each Transport is one thread's; the group lives as long as any of them.
#pragma once

#include <memory>
#include <vector>

#include "engine/ranks/transport.h"

namespace corpusd {

// The transports of ranks 0 .. size - 1. A transport that goes while others wait for it is a lost
// rank.
std::vector<std::unique_ptr<Transport>> MakeInProcessTransports(
    uint32_t size, std::chrono::milliseconds timeout = kTransferTimeout);

}  // namespace corpusd
