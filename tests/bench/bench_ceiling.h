// tests/bench/bench_ceiling.h -- what the machine could do at best, measured in the same run as the
// figures it is printed beside. Not thread-safe; uses `threads` threads itself.
#pragma once

namespace corpusd {

// Bytes per second that `threads` threads read (sum) from a buffer far larger than the caches, in
// huge pages where the kernel grants them; the best of several passes.
double MeasureReadBandwidth(unsigned threads);
// Multiply-adds per second in float32 with the widest registers the processor has; the best of
// several passes.
double MeasureFloatMacs(unsigned threads);

}  // namespace corpusd
