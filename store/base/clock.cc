#include "store/base/clock.h"

#include <atomic>
#include <chrono>

namespace corpusd {
namespace {

std::atomic<int64_t>& TestOffsetMs() {
  static std::atomic<int64_t> offset{0};
  return offset;
}

}  // namespace

int64_t WallTimeMs() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::milliseconds>(now).count() +
         TestOffsetMs().load(std::memory_order_relaxed);
}

double SteadySeconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void AdvanceWallTimeForTests(int64_t milliseconds) { TestOffsetMs().fetch_add(milliseconds); }

}  // namespace corpusd
