// daemon/rpc/plan_handler.h -- plan: what a corpus of some text would take here, from a sample of
// it: tokens, and the bytes of a block in every format that the model allows. Computes nothing but
// tokens; runs on a worker.
#pragma once

#include "corpusd/v1/corpusd.pb.h"
#include "daemon/rpc/services.h"

namespace corpusd {

// RETURNS kInvalidArgument for a sample of more than 4 MiB.
Result<v1::Response> HandlePlan(const Services& services, const v1::PlanRequest& request);

}  // namespace corpusd
