// daemon/rpc/status_mapping.h -- a Status as the protocol's Error, the only place where one becomes
// the other. Not the client's side: that has its own error type. Pure; any thread.
#pragma once

#include "corpusd/v1/corpusd.pb.h"
#include "store/base/status.h"

namespace corpusd {

// REQUIRES: !status.ok().
v1::Error ToError(const Status& status);
// An error that speaks of the connection, not of one request: id 0.
v1::Response ErrorResponse(uint64_t id, const Status& status);

}  // namespace corpusd
