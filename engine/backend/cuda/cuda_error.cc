#include "engine/backend/cuda/cuda_error.h"

#include <cuda_runtime_api.h>

#include <string>

namespace corpusd {

Status CudaStatus(int error, std::string_view what) {
  if (error == cudaSuccess) return OkStatus();
  const auto code = static_cast<cudaError_t>(error);
  const std::string text = "cannot " + std::string(what) +
                           " on the device: " + cudaGetErrorString(code) + " (" +
                           cudaGetErrorName(code) + ")";
  return code == cudaErrorMemoryAllocation ? ResourceExhaustedError(text)
                                           : Status(StatusCode::kDeviceError, text);
}

}  // namespace corpusd
