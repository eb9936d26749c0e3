// daemon/rpc/answer_request.h -- the answer to a request that has one response and was admitted
// (admission.h), for whatever surface it came over. Any thread; takes as long as the request does.
#pragma once

#include <stop_token>

#include "corpusd/v1/corpusd.pb.h"
#include "daemon/access/principal.h"
#include "daemon/rpc/peer.h"
#include "daemon/rpc/services.h"
#include "store/base/result.h"

namespace corpusd {

// peer: who acts, with whose pins it is. kUnimplemented: no request of this kind.
Result<v1::Response> AnswerRequest(const Services& services, const Principal& principal,
                                   const Peer& peer, const v1::Request& request,
                                   const std::stop_token& stop);

}  // namespace corpusd
