// daemon/rpc/doctor.h -- looks at the machine, the data folder and the model and says what is well
// and what is not, one line a check. Reads only, but for one small file that measures fsync in the
// data folder. Takes up to a second; on a worker.
#pragma once

#include "corpusd/v1/corpusd.pb.h"
#include "daemon/rpc/services.h"

namespace corpusd {

Result<v1::Response> HandleDoctor(const Services& services);

}  // namespace corpusd
