// daemon/http/perform.h -- the one door between HTTP and the daemon's handlers: what a client asks
// becomes a request of the protocol, and whoever may ask what is decided here, for all routes.
// Blocks as long as the request takes: on a worker.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "corpusd/v1/corpusd.pb.h"
#include "daemon/access/principal.h"
#include "daemon/http/http_context.h"
#include "daemon/http/identity.h"
#include "daemon/rpc/call.h"
#include "store/base/result.h"

namespace corpusd {

// Short requests: list, show, remove, pin, unpin, evict, warm, touch, jobs, cancel_job, doctor. The
// handlers are those of the socket's protocol.
Result<v1::Response> Perform(HttpContext& context, const Identity& identity, v1::Request request);

// What the daemon calls a corpus that this client calls so. kNotFound: he cannot mean one.
Result<std::string> WholeName(HttpContext& context, const Identity& identity,
                              std::string_view name);

// For a request that answers by a call, ask or ingest_begin: readies it and the sink of its
// responses for this client. RETURNS who he is. acting: null, or as whom handlers know him.
// REQUIRES: before the call is made.
Result<Principal> Admit(HttpContext& context, const Identity& identity, v1::Request* request,
                        std::shared_ptr<ResponseSink>* sink, Peer* acting = nullptr);

}  // namespace corpusd
