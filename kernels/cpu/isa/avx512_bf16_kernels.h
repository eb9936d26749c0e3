// kernels/cpu/isa/avx512_bf16_kernels.h -- the table for AVX-512 with bf16 dot products. Constant;
// any thread.
#pragma once

#include "kernels/cpu/cpu_kernels.h"

namespace corpusd {
extern const CpuKernels kAvx512Bf16Kernels;
}  // namespace corpusd
