// engine/backend/cpu_backend.h -- the CPU as a Backend: the fastest table of kernels the processor
// supports, a fixed set of threads, weights repacked once into panels. One caller at a time (see
// backend.h).
#pragma once

#include <memory>
#include <string>

#include "engine/backend/backend.h"

namespace corpusd {

struct CpuBackendOptions {
  unsigned threads = 0;  // 0: one per processor this process may use
  std::string isa =
      "auto";  // "auto", "avx2", "avx512", "amx"; may ask for less than the processor has
};

// kInvalidArgument for an unknown isa, kFailedPrecondition if the processor or the system lacks it.
Result<std::unique_ptr<Backend>> MakeCpuBackend(const CpuBackendOptions& options);

}  // namespace corpusd
