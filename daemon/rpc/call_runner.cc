#include "daemon/rpc/call_runner.h"

#include <exception>
#include <utility>

#include "daemon/log.h"
#include "store/lease_table.h"

namespace corpusd {
namespace {

// A question shows life with every piece of its answer; reading and prefilling it come before.
constexpr int64_t kReaderLifetimeMs = int64_t{30} * 60 * 1000;

}  // namespace

void RunCall(WorkerPool& pool, const std::shared_ptr<Call>& call, std::string holder,
             std::function<void()> function) {
  // At the latest when it has shown no sign of life for long, it is asked to let its blocks go.
  auto reader = std::make_shared<LeaseHolder>(std::move(holder), kReaderLifetimeMs,
                                              [weak = std::weak_ptr<Call>(call)] {
                                                if (const auto self = weak.lock())
                                                  self->Cancel(CancelledError("no sign of life"));
                                              });
  const bool taken = pool.Submit([call, reader, function = std::move(function)] {
    const LeaseScope scope(reader);
    try {
      function();
    } catch (const std::exception& error) {  // out of memory: the root of a worker's task
      Log(LogLevel::kError, "call_failed", {{"error", error.what()}});
      call->Fail(InternalError(std::string("the request failed: ") + error.what()));
    }
  });
  if (taken) return;
  call->Fail(UnavailableError(std::to_string(pool.running()) + " requests run and " +
                              std::to_string(pool.queued()) + " wait already; try again later"));
}

}  // namespace corpusd
