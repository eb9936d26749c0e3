// tests/bench/process_cost.h -- what this process has cost: processor time and memory. Linux. Any
// thread; the peak of memory is one for the process, so that one caller asks for it.
#pragma once

#include <sys/resource.h>

#include <fstream>
#include <string>

namespace corpusd {

// Seconds of all its threads, user and system, so that others on the machine do not count.
inline double ProcessorSeconds() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// The most memory that the process had resident since it was last asked, in MiB (proc(5): VmHWM).
inline double TakePeakMemory() {
  std::ifstream status("/proc/self/status");
  double mib = 0;
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) mib = std::stod(line.substr(6)) / 1024;
  }
  std::ofstream("/proc/self/clear_refs") << "5";  // begins anew
  return mib;
}

}  // namespace corpusd
