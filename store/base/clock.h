// store/base/clock.h -- the time of day as the store's records keep it, and a steady clock for
// durations. A test may move the time of day. Any thread.
#pragma once

#include <cstdint>

namespace corpusd {

// Milliseconds since 1970, UTC.
int64_t WallTimeMs();
// Seconds since some fixed instant; never goes back.
double SteadySeconds();
// For tests: moves WallTimeMs by so much, for the whole process.
void AdvanceWallTimeForTests(int64_t milliseconds);

}  // namespace corpusd
