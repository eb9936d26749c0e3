// store/base/split_mix.h -- SplitMix64 (Steele, Lea and Flood 2014): pseudo-random numbers that are
// the same on every host, unlike <random>'s distributions. Not for secrets. One thread each.
#pragma once

#include <cstdint>

namespace corpusd {

class SplitMix {
 public:
  explicit SplitMix(uint64_t seed) : state_(seed) {}
  uint64_t Next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }

 private:
  uint64_t state_;
};

}  // namespace corpusd
