// engine/backend/cuda/cuda_error.h -- CUDA's error codes as Status: the one place of the engine
// that knows them. Any thread.
#pragma once

#include <string_view>

#include "store/base/status.h"

namespace corpusd {

// error: a cudaError_t. `what` is the verb phrase of what failed, such as "copy a block".
// kResourceExhausted if memory is short, kDeviceError otherwise.
Status CudaStatus(int error, std::string_view what);

}  // namespace corpusd
