// kernels/cpu/isa/amx_kernels.h -- the table for AMX bf16 tiles, beside AVX-512 with bf16.
// Constant; any thread.
#pragma once

#include "kernels/cpu/cpu_kernels.h"

namespace corpusd {
extern const CpuKernels kAmxKernels;
}  // namespace corpusd
