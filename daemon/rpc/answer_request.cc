#include "daemon/rpc/answer_request.h"

#include "daemon/metrics/exposition.h"
#include "daemon/rpc/admin_handler.h"
#include "daemon/rpc/corpus_handler.h"
#include "daemon/rpc/doctor.h"
#include "daemon/rpc/explain_handler.h"
#include "daemon/rpc/plan_handler.h"
#include "daemon/rpc/retention_handler.h"
#include "daemon/rpc/tier_handler.h"

namespace corpusd {
namespace {

// What asks of the daemon as a whole and changes nothing.
Result<v1::Response> Inquire(const Services& services, const Principal& principal,
                             const v1::Request& request) {
  switch (request.body_case()) {
    case v1::Request::kDiskUsage:
      return principal.IsOperator() ? HandleDiskUsage(services)
                                    : HandleTenantUsage(services, principal);
    case v1::Request::kDoctor:
      return HandleDoctor(services);
    case v1::Request::kExplainMiss:
      return HandleExplainMiss(services, principal, request.explain_miss());
    case v1::Request::kPlan:
      return HandlePlan(services, request.plan());
    case v1::Request::kStats:
      return HandleStats(services);
    default:
      return UnimplementedError("this daemon does not know the request");
  }
}

}  // namespace

Result<v1::Response> AnswerRequest(const Services& services, const Principal& principal,
                                   const Peer& peer, const v1::Request& request,
                                   const std::stop_token& stop) {
  switch (request.body_case()) {
    case v1::Request::kList:
      return HandleList(services, principal);
    case v1::Request::kShow:
      return HandleShow(services, request.show());
    case v1::Request::kRemove:
      return HandleRemove(services, peer, request.remove(), stop);
    case v1::Request::kRename:
      return HandleRename(services, request.rename());
    case v1::Request::kPin:
      return HandlePin(services, peer, request.pin());
    case v1::Request::kUnpin:
      return HandleUnpin(services, peer, request.unpin());
    case v1::Request::kEvict:
      return HandleEvict(services, request.evict());
    case v1::Request::kWarm:
      return HandleWarm(services, request.warm());
    case v1::Request::kTouch:
      return HandleTouch(services, request.touch());
    case v1::Request::kJobs:
      return HandleJobs(services, principal);
    case v1::Request::kJob:
      return HandleJob(services, request.job());
    case v1::Request::kCancelJob:
      return HandleCancelJob(services, request.cancel_job());
    case v1::Request::kScrub:
      return HandleScrub(services, request.scrub());
    default:
      return Inquire(services, principal, request);
  }
}

}  // namespace corpusd
