// daemon/rpc/admin_handler.h -- the verbs of an administrator: is it there, how full is it, is it
// whole. HandleVersion and HandlePing do not block; the others run on a worker.
#pragma once

#include <memory>

#include "corpusd/v1/corpusd.pb.h"
#include "daemon/access/principal.h"
#include "daemon/rpc/call.h"
#include "daemon/rpc/services.h"

namespace corpusd {

v1::Response HandlePing(const Services& services);
v1::Response HandleVersion(const Services& services);
Result<v1::Response> HandleDiskUsage(const Services& services);
// The same for somebody who sees one tenant: its corpora, its pins, what it takes of its quota.
Result<v1::Response> HandleTenantUsage(const Services& services, const Principal& principal);
// Streams Progress, then answers the call.
void RunVerify(const Services& services, const std::shared_ptr<Call>& call,
               const v1::VerifyRequest& request);

}  // namespace corpusd
