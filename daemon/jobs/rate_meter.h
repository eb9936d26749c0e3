// daemon/jobs/rate_meter.h -- RateMeter: how fast a counter has grown of late, for a job's tokens/s
// and ETA. Pure arithmetic over the times it is given; one thread at a time.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>

namespace corpusd {

class RateMeter {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  // REQUIRES: neither time nor count goes back.
  void Add(TimePoint time, uint64_t count);
  // Over the samples of the last kWindow, or the last two if they lie farther apart; 0: unknown.
  double PerSecond() const;
  // Seconds until `left` more are done; < 0: unknown.
  double SecondsFor(uint64_t left) const;

 private:
  // Long enough to smooth runs of blocks, short enough to follow a prefill that slows with its
  // depth.
  static constexpr std::chrono::seconds kWindow{30};
  struct Sample {
    TimePoint time;
    uint64_t count;
  };
  std::deque<Sample> samples_;
};

}  // namespace corpusd
