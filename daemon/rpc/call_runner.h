// daemon/rpc/call_runner.h -- calls on a worker pool: what a call reads is leased to it, and it
// always ends, also when its work fails or the pool is full. From any thread; never blocks.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "daemon/rpc/call.h"
#include "daemon/worker_pool.h"

namespace corpusd {

// Runs the function, which answers the call itself. holder: how leases name the call.
void RunCall(WorkerPool& pool, const std::shared_ptr<Call>& call, std::string holder,
             std::function<void()> function);

}  // namespace corpusd
