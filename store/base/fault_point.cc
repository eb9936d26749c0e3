#include "store/base/fault_point.h"

#include <csignal>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>

namespace corpusd {
namespace {

struct ArmedFault {
  FaultKind kind;
  uint64_t after;
  uint64_t times;
};

std::mutex& Mutex() {
  static std::mutex mutex;
  return mutex;
}

std::map<std::string, ArmedFault, std::less<>>& Faults() {
  static std::map<std::string, ArmedFault, std::less<>> faults;
  return faults;
}

bool ParseNumber(std::string_view text, uint64_t* number) {
  if (text.empty() || text.size() > 18) return false;
  *number = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return false;
    *number = *number * 10 + static_cast<uint64_t>(c - '0');
  }
  return true;
}

bool ParseOption(std::string_view option, uint64_t* after, uint64_t* times) {
  if (option.starts_with("after=")) return ParseNumber(option.substr(6), after);
  if (option.starts_with("times=")) return ParseNumber(option.substr(6), times);
  return false;
}

}  // namespace

namespace internal {

std::atomic<bool> any_fault_armed{false};  // NOLINT(*-avoid-non-const-global-variables)

Status CheckFault(std::string_view name) {
  const std::lock_guard lock(Mutex());
  const auto it = Faults().find(name);
  if (it == Faults().end()) return OkStatus();
  ArmedFault& fault = it->second;
  if (fault.after > 0) {
    --fault.after;
    return OkStatus();
  }
  if (fault.times == 0) return OkStatus();
  --fault.times;
  switch (fault.kind) {
    case FaultKind::kNoSpace:
      return ResourceExhaustedError("injected at " + std::string(name) +
                                    ": no space left on device");
    case FaultKind::kIoError:
      return IoError("injected at " + std::string(name) + ": input/output error");
    case FaultKind::kCrash:
      std::raise(SIGKILL);
  }
  return OkStatus();
}

}  // namespace internal

void ArmFault(std::string_view name, FaultKind kind, uint64_t after, uint64_t times) {
  const std::lock_guard lock(Mutex());
  Faults()[std::string(name)] = {kind, after, times};
  internal::any_fault_armed.store(true, std::memory_order_relaxed);
}

void DisarmFaults() {
  const std::lock_guard lock(Mutex());
  Faults().clear();
  internal::any_fault_armed.store(false, std::memory_order_relaxed);
}

namespace {

// name=kind[:after=N][:times=M]. RETURNS whether it was armed.
bool ArmFromText(std::string_view text) {
  const size_t equals = text.find('=');
  if (equals == std::string_view::npos) return false;
  size_t colon = text.find(':', equals);
  const std::string_view kind_text = text.substr(equals + 1, colon - equals - 1);
  FaultKind kind;
  if (kind_text == "enospc") {
    kind = FaultKind::kNoSpace;
  } else if (kind_text == "eio") {
    kind = FaultKind::kIoError;
  } else if (kind_text == "crash") {
    kind = FaultKind::kCrash;
  } else {
    return false;
  }
  uint64_t after = 0;
  uint64_t times = UINT64_MAX;
  while (colon != std::string_view::npos) {
    const size_t next = text.find(':', colon + 1);
    if (!ParseOption(text.substr(colon + 1, next - colon - 1), &after, &times)) return false;
    colon = next;
  }
  ArmFault(text.substr(0, equals), kind, after, times);
  return true;
}

}  // namespace

Status ArmFaultsFromEnvironment() {
  const char* const variable = std::getenv("CORPUSD_FAULT");
  if (variable == nullptr) return OkStatus();
  std::string_view rest(variable);
  for (bool more = true; more;) {
    const size_t comma = rest.find(',');
    more = comma != std::string_view::npos;
    if (!ArmFromText(rest.substr(0, comma))) {
      return InvalidArgumentError("CORPUSD_FAULT='" + std::string(variable) +
                                  "': expected name=enospc|eio|crash[:after=N][:times=M], more of "
                                  "them behind commas");
    }
    if (more) rest.remove_prefix(comma + 1);
  }
  return OkStatus();
}

}  // namespace corpusd
