// daemon/access/request_scope.h -- what a request needs of whoever sends it, and which corpora it
// means: names are those of the sender's tenant, whatever he calls them. The one place that knows
// this for every request of the protocol; a request that it does not know is denied. Pure; any
// thread.
#pragma once

#include <string>
#include <string_view>

#include "corpusd/v1/corpusd.pb.h"
#include "daemon/access/access_table.h"
#include "daemon/access/principal.h"
#include "store/base/result.h"

namespace corpusd {

// RETURNS the whole name of what the principal calls `name`. "" stays. kNotFound for a name with a
// tenant before it, but from an operator, who says "TENANT/NAME" of a tenant that the table has.
Result<std::string> WholeName(const Principal& principal, const AccessTable& table,
                              std::string_view name);

// kPermissionDenied if the request needs another role. Else puts whole names for those it has.
Status ScopeRequest(const Principal& principal, const AccessTable& table, v1::Request* request);

// Whether the request is for admins alone: told in the audit log. what: "import".
bool IsAdminRequest(const v1::Request& request, std::string* what);

}  // namespace corpusd
