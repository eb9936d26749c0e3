// store/base/fault_point.h -- named places where a test makes an operation fail: a full disk, an
// I/O error, a crash. Unarmed (always, outside tests) a point costs one relaxed load. Armed by
// code, or by the environment CORPUSD_FAULT="name=enospc", "name=eio" or "name=crash", with
// ":after=N" to let N calls pass first and ":times=M" to fail only M calls. Any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <string_view>

#include "store/base/status.h"

namespace corpusd {

enum class FaultKind : uint8_t { kNoSpace, kIoError, kCrash };

void ArmFault(std::string_view name, FaultKind kind, uint64_t after, uint64_t times);
void DisarmFaults();
// Reads CORPUSD_FAULT. RETURNS kInvalidArgument if it is set and malformed.
Status ArmFaultsFromEnvironment();

namespace internal {
extern std::atomic<bool> any_fault_armed;  // NOLINT(*-avoid-non-const-global-variables)
Status CheckFault(std::string_view name);
}  // namespace internal

// RETURNS the injected error, or Ok.
inline Status FaultPoint(std::string_view name) {
  if (!internal::any_fault_armed.load(std::memory_order_relaxed)) return OkStatus();
  return internal::CheckFault(name);
}

}  // namespace corpusd
