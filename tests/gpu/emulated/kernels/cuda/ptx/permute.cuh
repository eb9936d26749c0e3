// tests/gpu/emulated/kernels/cuda/ptx/permute.cuh -- stands in for kernels/cuda/ptx/permute.cuh in
// tests that run kernels on the CPU; permutations themselves have code for the host already.
#pragma once

namespace corpusd::cuda::ptx {

inline int Opaque(int x) { return x; }

}  // namespace corpusd::cuda::ptx
