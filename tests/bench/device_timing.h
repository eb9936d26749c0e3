// tests/bench/device_timing.h -- how the benches of CUDA kernels check calls and time them. For
// programs: a failed call ends them. One thread, the default stream.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace corpusd::cuda {

// Ends the program if a call has failed.
inline void Check(int error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(static_cast<cudaError_t>(error)));
  std::exit(1);
}

// Median milliseconds of a call, each timed alone, after `warm_ups` that are not.
template <class Call>
double MedianMs(int repeats, int warm_ups, const Call& call) {
  cudaEvent_t begin, end;
  Check(cudaEventCreate(&begin), "event");
  Check(cudaEventCreate(&end), "event");
  std::vector<float> times(repeats);
  for (int i = 0; i < warm_ups; ++i) call();
  for (float& ms : times) {
    Check(cudaEventRecord(begin), "event");
    call();
    Check(cudaEventRecord(end), "event");
    Check(cudaEventSynchronize(end), "wait");
    Check(cudaEventElapsedTime(&ms, begin, end), "event");
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

}  // namespace corpusd::cuda
