// tests/bench/cpu_ceilings.h -- what this processor can do at most: dot product peaks and read
// bandwidth, measured in the same run as the kernels they judge. Blocking; call from one thread.
#pragma once

#include <cstdint>
#include <string_view>

namespace corpusd {

struct CpuCeilings {
  double fp32_gmacs = 0;   // billions of multiply-adds a second, all threads
  double bf16_gmacs = 0;   // 0: the processor has no such instruction
  double int16_gmacs = 0;  // paired products with 32-bit sums
  double int8_gmacs = 0;
  double amx_bf16_gmacs = 0;
  double read_gbytes = 0;  // sum over 256 MiB in huge pages
};

// Seconds by the wall clock, or of processor time: on a machine that others use, one thread's
// processor time says what a quiet machine's clock would.
double BenchSeconds(bool processor_time);

// Of the arithmetic that a backend's products of many rows use, such as "cpu-amx"; 0: none of
// these.
double MacsCeiling(const CpuCeilings& ceilings, std::string_view backend);

CpuCeilings MeasureCpuCeilings(unsigned threads, bool processor_time);

}  // namespace corpusd
