// daemon/rpc/tier_handler.h -- the verbs that move blocks between tiers: evict and warm. Plain
// functions from request to response; they may wait for the disk, so they run on a worker.
#pragma once

#include <string_view>

#include "corpusd/v1/corpusd.pb.h"
#include "daemon/rpc/services.h"
#include "store/block_ref.h"

namespace corpusd {

// The tier of this name, `if_empty` for none. kFailedPrecondition: a device tier that this daemon
// does not have; kInvalidArgument: no tier has the name.
Result<TierKind> TierOf(const Services& services, std::string_view text, TierKind if_empty);

Result<v1::Response> HandleEvict(const Services& services, const v1::EvictRequest& request);
Result<v1::Response> HandleWarm(const Services& services, const v1::WarmRequest& request);

}  // namespace corpusd
