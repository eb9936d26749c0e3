// daemon/rpc/retention_handler.h -- the verbs that say how long a corpus is kept and how dear it
// is: pin, unpin, touch. Plain functions from request to response; they may wait for the disk, so
// they run on a worker.
#pragma once

#include "corpusd/v1/corpusd.pb.h"
#include "daemon/rpc/peer.h"
#include "daemon/rpc/services.h"

namespace corpusd {

// Makes a pin of the peer, or changes the one that stands; that one keeps its owner.
// kResourceExhausted, saying who holds what, if it does not fit; kPermissionDenied if it is another
// user's.
Result<v1::Response> HandlePin(const Services& services, const Peer& peer,
                               const v1::PinRequest& request);
Result<v1::Response> HandleUnpin(const Services& services, const Peer& peer,
                                 const v1::UnpinRequest& request);
Result<v1::Response> HandleTouch(const Services& services, const v1::TouchRequest& request);

// RETURNS the Unix time at which a ttl from now ends; 0 (never) for ttl 0 or one beyond the clock.
int64_t ExpiryOf(const Services& services, uint64_t ttl_ms);

}  // namespace corpusd
