// kernels/cpu/isa/avx512_kernels.h -- the table for AVX-512 F, BW, VL, DQ, in float32. Constant;
// any thread.
#pragma once

#include "kernels/cpu/cpu_kernels.h"

namespace corpusd {
extern const CpuKernels kAvx512Kernels;
}  // namespace corpusd
