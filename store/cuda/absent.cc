// What a build without CUDA has of cuda_device_memory.h.
#include "store/cuda/cuda_device_memory.h"

namespace corpusd {

Result<std::shared_ptr<DeviceMemory>> MakeCudaDeviceMemory(int index, uint64_t bytes,
                                                           uint64_t* taken_bytes) {
  (void)bytes;
  *taken_bytes = 0;
  return FailedPreconditionError("cuda:" + std::to_string(index) +
                                 ": this build was made without CUDA");
}

}  // namespace corpusd
