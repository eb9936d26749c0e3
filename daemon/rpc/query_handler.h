// daemon/rpc/query_handler.h -- ask: one question over one corpus, on a worker of the query pool,
// streamed if so wished, with one log line of figures and never of text.
#pragma once

#include <memory>
#include <string_view>

#include "corpusd/v1/corpusd.pb.h"
#include "daemon/rpc/call.h"
#include "daemon/rpc/services.h"

namespace corpusd {

// Answers the call when the engine has. Blocks for as long. tenant: who asks; of a question without
// a corpus, with whom it shares what was computed.
void RunQuery(const Services& services, const std::shared_ptr<Call>& call, std::string_view tenant,
              const v1::AskRequest& request);

}  // namespace corpusd
