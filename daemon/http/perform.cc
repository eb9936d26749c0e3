#include "daemon/http/perform.h"

#include "daemon/rpc/corpus_handler.h"
#include "daemon/rpc/doctor.h"
#include "daemon/rpc/retention_handler.h"
#include "daemon/rpc/tier_handler.h"

namespace corpusd {

Result<v1::Response> Perform(HttpContext& context, const Identity& identity, v1::Request request) {
  const Services& services = context.services();
  const Peer& peer = identity.peer;
  switch (request.body_case()) {
    case v1::Request::kList:
      return HandleList(services);
    case v1::Request::kShow:
      return HandleShow(services, request.show());
    case v1::Request::kRemove:
      return HandleRemove(services, peer, request.remove(), /*stop=*/{});
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
      return HandleJobs(services);
    case v1::Request::kCancelJob:
      return HandleCancelJob(services, request.cancel_job());
    case v1::Request::kDoctor:
      return HandleDoctor(services);
    default:
      return UnimplementedError("HTTP does not know the request");
  }
}

Status Admit(HttpContext& /*context*/, const Identity& /*identity*/, v1::Request* /*request*/,
             std::shared_ptr<ResponseSink>* /*sink*/) {
  return OkStatus();
}

}  // namespace corpusd
