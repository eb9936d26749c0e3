// daemon/rpc/explain_handler.h -- explain-miss: why blocks of a corpus, or of a text that is none
// yet, are not in the store. Reads the catalogue; runs on a worker.
#pragma once

#include "corpusd/v1/corpusd.pb.h"
#include "daemon/access/principal.h"
#include "daemon/rpc/services.h"

namespace corpusd {

Result<v1::Response> HandleExplainMiss(const Services& services, const Principal& principal,
                                       const v1::ExplainMissRequest& request);

}  // namespace corpusd
