// daemon/rpc/admission.h -- the one gate between a client, on whatever surface, and the handlers:
// who asks, whether he may, and which corpora he means. Never waits: any thread.
#pragma once

#include "corpusd/v1/corpusd.pb.h"
#include "daemon/access/access_control.h"
#include "daemon/rpc/services.h"

namespace corpusd {

// RETURNS who asks; the request has whole names then, and its answers go through ScopedSink or
// ScopeResponse. kPermissionDenied; kNotFound for corpora and jobs that he may not know of. What is
// denied, and what an admin is allowed, is logged.
Result<Principal> AdmitRequest(const Services& services, const Credentials& credentials,
                               v1::Request* request);

}  // namespace corpusd
