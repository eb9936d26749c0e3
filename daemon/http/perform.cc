#include "daemon/http/perform.h"

#include <utility>

#include "daemon/access/reply_scope.h"
#include "daemon/access/request_scope.h"
#include "daemon/rpc/admission.h"
#include "daemon/rpc/corpus_handler.h"
#include "daemon/rpc/doctor.h"
#include "daemon/rpc/retention_handler.h"
#include "daemon/rpc/tier_handler.h"

namespace corpusd {

namespace {

Result<v1::Response> Answer(const Services& services, const Principal& principal, const Peer& peer,
                            const v1::Request& request) {
  switch (request.body_case()) {
    case v1::Request::kList:
      return HandleList(services, principal);
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
      return HandleJobs(services, principal);
    case v1::Request::kCancelJob:
      return HandleCancelJob(services, request.cancel_job());
    case v1::Request::kDoctor:
      return HandleDoctor(services);
    default:
      return UnimplementedError("HTTP does not know the request");
  }
}

}  // namespace

Result<v1::Response> Perform(HttpContext& context, const Identity& identity, v1::Request request) {
  const Services& services = context.services();
  const Credentials credentials = CredentialsOf(identity);
  ASSIGN_OR_RETURN(const Principal principal, AdmitRequest(services, credentials, &request));
  const Peer peer = ActingPeer(principal, credentials, services.access.table()->restricts());
  Result<v1::Response> response = Answer(services, principal, peer, request);
  if (!response.ok()) return ScopeStatus(principal, response.status());
  ScopeResponse(principal, &*response);
  return response;
}

Result<std::string> WholeName(HttpContext& context, const Identity& identity,
                              std::string_view name) {
  const AccessControl& access = context.services().access;
  ASSIGN_OR_RETURN(const Principal principal, access.Authenticate(CredentialsOf(identity)));
  return WholeName(principal, *access.table(), name);
}

Status Admit(HttpContext& context, const Identity& identity, v1::Request* request,
             std::shared_ptr<ResponseSink>* sink, Peer* acting) {
  const Services& services = context.services();
  const Credentials credentials = CredentialsOf(identity);
  ASSIGN_OR_RETURN(const Principal principal, AdmitRequest(services, credentials, request));
  *sink = ScopedSink(principal, std::move(*sink));
  if (acting != nullptr) {
    *acting = ActingPeer(principal, credentials, services.access.table()->restricts());
  }
  return OkStatus();
}

}  // namespace corpusd
