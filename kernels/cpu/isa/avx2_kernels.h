// kernels/cpu/isa/avx2_kernels.h -- the table for AVX2 with FMA and F16C. Constant; any thread.
// Call its functions only where cpu_features.h finds those instructions.
#pragma once

#include "kernels/cpu/cpu_kernels.h"

namespace corpusd {
extern const CpuKernels kAvx2Kernels;
}  // namespace corpusd
