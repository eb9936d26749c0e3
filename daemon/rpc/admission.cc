#include "daemon/rpc/admission.h"

#include <string>

#include "daemon/access/request_scope.h"
#include "daemon/rpc/corpus_handler.h"
#include "daemon/rpc/corpus_message.h"
#include "daemon/rpc/method_name.h"
#include "store/tenant_of.h"

namespace corpusd {
namespace {

// The job that a request is about; 0: none.
uint64_t JobOf(const v1::Request& request) {
  switch (request.body_case()) {
    case v1::Request::kJob:
      return request.job().id();
    case v1::Request::kWatchJob:
      return request.watch_job().id();
    case v1::Request::kCancelJob:
      return request.cancel_job().id();
    default:
      return 0;
  }
}

}  // namespace

Result<Principal> AdmitRequest(const Services& services, const Credentials& credentials,
                               v1::Request* request) {
  ASSIGN_OR_RETURN(Principal principal, services.access.Authenticate(credentials));
  const auto table = services.access.table();
  // A name that no corpus can have is told from one that none has.
  const bool names_one = request->has_import_begin() && !request->import_begin().name().empty();
  if (request->has_ingest_begin() || names_one) {
    const std::string& name =
        names_one ? request->import_begin().name() : request->ingest_begin().name();
    RETURN_IF_ERROR(CheckCorpusName(name));
    if (!table->restricts() && !TenantOf(name).empty()) {
      return InvalidArgumentError("corpus name '" + name +
                                  "' begins with a tenant's, and the daemon has no tenants");
    }
  }
  std::string what;
  const bool admin = IsAdminRequest(*request, &what);
  if (const Status admitted = ScopeRequest(principal, *table, request); !admitted.ok()) {
    if (admitted.code() == StatusCode::kPermissionDenied) {
      services.access.audit().Denied(PrincipalText(principal) + ", " + CredentialsText(credentials),
                                     MethodOf(*request), admitted.message());
    }
    return admitted;
  }
  if (const uint64_t job = JobOf(*request); job != 0) {
    RETURN_IF_ERROR(CheckMaySeeJob(services, principal, job));
  }
  if (admin && table->restricts()) services.access.audit().Admin(principal, what);
  return principal;
}

}  // namespace corpusd
