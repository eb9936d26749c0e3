#include "daemon/http/perform.h"

#include <utility>

#include "daemon/access/reply_scope.h"
#include "daemon/access/request_scope.h"
#include "daemon/rpc/admission.h"
#include "daemon/rpc/answer_request.h"

namespace corpusd {

Result<v1::Response> Perform(HttpContext& context, const Identity& identity, v1::Request request) {
  const Services& services = context.services();
  const Credentials credentials = CredentialsOf(identity);
  ASSIGN_OR_RETURN(const Principal principal, AdmitRequest(services, credentials, &request));
  const Peer peer = ActingPeer(principal, credentials, services.access.table()->restricts());
  Result<v1::Response> response = AnswerRequest(services, principal, peer, request, /*stop=*/{});
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

Result<Principal> Admit(HttpContext& context, const Identity& identity, v1::Request* request,
                        std::shared_ptr<ResponseSink>* sink, Peer* acting) {
  const Services& services = context.services();
  const Credentials credentials = CredentialsOf(identity);
  ASSIGN_OR_RETURN(Principal principal, AdmitRequest(services, credentials, request));
  *sink = ScopedSink(principal, std::move(*sink));
  if (acting != nullptr) {
    *acting = ActingPeer(principal, credentials, services.access.table()->restricts());
  }
  return principal;
}

}  // namespace corpusd
