// What a build without CUDA has of engine/backend/device_backend.h.
#include "engine/backend/device_backend.h"

namespace corpusd {

int CudaDeviceCount() { return 0; }

Result<std::unique_ptr<Backend>> MakeCudaBackend(int index, unsigned threads, DeviceLost on_lost) {
  (void)threads;
  (void)on_lost;
  return FailedPreconditionError("cuda:" + std::to_string(index) +
                                 ": this build was made without CUDA");
}

}  // namespace corpusd
