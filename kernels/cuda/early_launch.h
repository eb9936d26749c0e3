// kernels/cuda/early_launch.h -- launches a kernel that may begin while the one before it ends, and
// that waits for it (ptx/dependent_launch.cuh) before it reads what that one writes. In a graph,
// too.
#pragma once

#include <cuda_runtime.h>

namespace corpusd::cuda {

template <class... Parameters, class... Arguments>
cudaError_t LaunchEarly(void (*kernel)(Parameters...), dim3 blocks, unsigned threads,
                        size_t shared_bytes, CUstream_st* stream, const Arguments&... arguments) {
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  // Blocks, threads, shared memory, stream, attributes.
  const cudaLaunchConfig_t shape{blocks, dim3(threads), shared_bytes, stream, &early, 1};
  return cudaLaunchKernelEx(&shape, kernel, static_cast<Parameters>(arguments)...);
}

}  // namespace corpusd::cuda
