// store/cuda/cuda_device_memory.h -- a CUDA device's memory as the device tier uses it: one arena
// taken at the start, copies through pinned memory on streams of their own, checksums computed by a
// kernel. The one place of the store that knows CUDA; a build without it has MakeCudaDeviceMemory
// as a refusal. Thread-safe; copies must end before it does.
#pragma once

#include <cstdint>
#include <memory>

#include "store/device_memory.h"

namespace corpusd {

// Takes `bytes` of device `index`; 0: half of what is free there. kResourceExhausted,
// kDeviceError; kFailedPrecondition: this build is without CUDA. *taken_bytes: the arena's size.
Result<std::shared_ptr<DeviceMemory>> MakeCudaDeviceMemory(int index, uint64_t bytes,
                                                           uint64_t* taken_bytes);

}  // namespace corpusd
