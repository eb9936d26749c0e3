#include "daemon/access/request_scope.h"
#include "store/tenant_of.h"

#include <vector>

namespace corpusd {
namespace {

// Of the daemon as a whole, beyond any role in a tenant.
enum class Need : uint8_t { kNothing, kReader, kWriter, kAdmin, kOperator };

Need NeedOf(const v1::Request& request) {
  switch (request.body_case()) {
    case v1::Request::kPing:
    case v1::Request::kVersion:
    case v1::Request::kCancel:
    // They go on with what has begun.
    case v1::Request::kIngestData:
    case v1::Request::kIngestEnd:
    case v1::Request::kExportNext:
    case v1::Request::kImportData:
    case v1::Request::kImportEnd:
      return Need::kNothing;
    case v1::Request::kAsk:
    case v1::Request::kList:
    case v1::Request::kShow:
    case v1::Request::kJobs:
    case v1::Request::kJob:
    case v1::Request::kWatchJob:
    case v1::Request::kDiskUsage:
    case v1::Request::kExplainMiss:
    case v1::Request::kPlan:
      return Need::kReader;
    case v1::Request::kIngestBegin:
    case v1::Request::kRemove:
    case v1::Request::kRename:
    case v1::Request::kPin:
    case v1::Request::kUnpin:
    case v1::Request::kWarm:
    case v1::Request::kTouch:
    case v1::Request::kCancelJob:
    case v1::Request::kVerify:
    case v1::Request::kExportBegin:
      return Need::kWriter;
    case v1::Request::kEvict:
      return request.evict().name().empty() ? Need::kOperator : Need::kWriter;
    case v1::Request::kImportBegin:
      return Need::kAdmin;
    case v1::Request::kDoctor:
    case v1::Request::kScrub:
    case v1::Request::kStats:
      return Need::kOperator;
    case v1::Request::BODY_NOT_SET:
      return Need::kNothing;  // refused by who does not know it
  }
  return Need::kOperator;
}

Status CheckNeed(const Principal& principal, Need need) {
  const auto denied = [&](std::string_view who) {
    return Status(StatusCode::kPermissionDenied,
                  "you are " + PrincipalText(principal) + ": this takes " + std::string(who));
  };
  switch (need) {
    case Need::kNothing:
    case Need::kReader:
      return OkStatus();
    case Need::kWriter:
      return principal.role >= Role::kWriter ? OkStatus() : denied("a writer");
    case Need::kAdmin:
      return principal.role >= Role::kAdmin ? OkStatus() : denied("an admin");
    case Need::kOperator:
      return principal.IsOperator() ? OkStatus() : denied("an admin of the daemon itself");
  }
  return denied("another role");
}

// Every name of a corpus in the request.
std::vector<std::string*> NamesOf(v1::Request* request) {
  switch (request->body_case()) {
    case v1::Request::kIngestBegin:
      return {request->mutable_ingest_begin()->mutable_name()};
    case v1::Request::kAsk:
      return {request->mutable_ask()->mutable_name()};
    case v1::Request::kShow:
      return {request->mutable_show()->mutable_name()};
    case v1::Request::kRemove:
      return {request->mutable_remove()->mutable_name()};
    case v1::Request::kRename:
      return {request->mutable_rename()->mutable_from(), request->mutable_rename()->mutable_to()};
    case v1::Request::kPin:
      return {request->mutable_pin()->mutable_name()};
    case v1::Request::kUnpin:
      return {request->mutable_unpin()->mutable_name()};
    case v1::Request::kEvict:
      return {request->mutable_evict()->mutable_name()};
    case v1::Request::kWarm:
      return {request->mutable_warm()->mutable_name()};
    case v1::Request::kTouch:
      return {request->mutable_touch()->mutable_name()};
    case v1::Request::kVerify:
      return {request->mutable_verify()->mutable_name()};
    case v1::Request::kExportBegin:
      return {request->mutable_export_begin()->mutable_name()};
    case v1::Request::kImportBegin:
      return {request->mutable_import_begin()->mutable_name()};
    case v1::Request::kExplainMiss:
      return {request->mutable_explain_miss()->mutable_name()};
    default:
      return {};
  }
}

}  // namespace

Result<std::string> WholeName(const Principal& principal, const AccessTable& table,
                              std::string_view name) {
  if (name.empty()) return std::string();
  const std::string_view tenant = TenantOf(name);
  if (name.find('/') == std::string_view::npos) {
    return principal.tenant.empty() ? std::string(name)
                                    : principal.tenant + "/" + std::string(name);
  }
  if (principal.IsOperator() && !tenant.empty() && table.HasTenant(tenant)) {
    return std::string(name);
  }
  return NotFoundError("corpus '" + std::string(name) + "' does not exist");
}

Status ScopeRequest(const Principal& principal, const AccessTable& table, v1::Request* request) {
  RETURN_IF_ERROR(CheckNeed(principal, NeedOf(*request)));
  for (std::string* const name : NamesOf(request)) {
    ASSIGN_OR_RETURN(*name, WholeName(principal, table, *name));
  }
  if (request->has_import_begin() && request->import_begin().name().empty() &&
      !principal.tenant.empty()) {
    return InvalidArgumentError("name the corpus to make: corpusctl import FILE --name NAME");
  }
  if (request->has_rename() &&
      TenantOf(request->rename().from()) != TenantOf(request->rename().to())) {
    return InvalidArgumentError(
        "a corpus cannot be given to another tenant: its blocks are named "
        "by the tenant's salt; export it and import it there");
  }
  return OkStatus();
}

bool IsAdminRequest(const v1::Request& request, std::string* what) {
  if (NeedOf(request) < Need::kAdmin) return false;
  *what = request.has_import_begin() ? "import"
          : request.has_evict()      ? "evict"
          : request.has_scrub()      ? "scrub"
          : request.has_stats()      ? "stats"
                                     : "doctor";
  return true;
}

}  // namespace corpusd
