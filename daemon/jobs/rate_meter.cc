#include "daemon/jobs/rate_meter.h"

namespace corpusd {

void RateMeter::Add(TimePoint time, uint64_t count) {
  samples_.push_back({time, count});
  while (samples_.size() > 2 && samples_[1].time + kWindow <= time) samples_.pop_front();
}

double RateMeter::PerSecond() const {
  if (samples_.size() < 2) return 0;
  const std::chrono::duration<double> span = samples_.back().time - samples_.front().time;
  if (span.count() <= 0) return 0;
  return static_cast<double>(samples_.back().count - samples_.front().count) / span.count();
}

double RateMeter::SecondsFor(uint64_t left) const {
  const double rate = PerSecond();
  return rate > 0 ? static_cast<double>(left) / rate : -1;
}

}  // namespace corpusd
