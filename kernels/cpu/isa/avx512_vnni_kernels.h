// kernels/cpu/isa/avx512_vnni_kernels.h -- the table for AVX-512 with integer dot products (VNNI).
// Constant; any thread.
#pragma once

#include "kernels/cpu/cpu_kernels.h"

namespace corpusd {
extern const CpuKernels kAvx512VnniKernels;
}  // namespace corpusd
