// kernels/cpu/cpu_features.h -- what this processor and its operating system let a process use.
// Asked once, at start; any thread. Never assumes: a feature counts only if its registers are also
// saved by the system.
#pragma once

namespace corpusd {

struct CpuFeatures {
  bool avx2 = false;         // with FMA and F16C
  bool avx512 = false;       // F, BW, VL, DQ
  bool avx512_vnni = false;  // and the integer dot products
  // And permutations of bytes, bf16 dot products; tile registers, granted to this process.
  bool amx_bf16 = false;
};

// Asks the system for permission to use tile registers where the processor has them.
CpuFeatures DetectCpuFeatures() noexcept;

}  // namespace corpusd
