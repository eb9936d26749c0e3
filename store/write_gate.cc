#include "store/write_gate.h"

#include <algorithm>

#include "store/base/clock.h"

namespace corpusd {

WriteState WriteGate::state() const {
  const std::lock_guard lock(mutex_);
  return state_;
}

void WriteGate::Tell() {
  if (!listener_) return;
  const std::lock_guard turn(tell_mutex_);
  const WriteState now = state();
  if (now.read_only == told_read_only_) return;
  told_read_only_ = now.read_only;
  listener_(now);
}

Status WriteGate::Observe(const Status& written, uint64_t needed_bytes) {
  const bool full = written.code() == StatusCode::kResourceExhausted;
  if (!full && written.code() != StatusCode::kIoError) return written;
  {
    const std::lock_guard lock(mutex_);
    needed_bytes_ = std::max(needed_bytes_, needed_bytes);
    full_ = full;
    // The first failure is the cause; those that follow are often its echo.
    if (!state_.read_only) state_ = {true, written.message(), WallTimeMs(), 0};
  }
  Tell();
  return written;
}

bool WriteGate::TryOpen() {
  const std::lock_guard turn(probe_mutex_);
  uint64_t needed_bytes = 0;
  {
    const std::lock_guard lock(mutex_);
    if (!state_.read_only) return true;
    needed_bytes = needed_bytes_;
  }
  if (!probe_(needed_bytes).ok()) return false;
  {
    const std::lock_guard lock(mutex_);
    state_ = {};
    needed_bytes_ = 0;
  }
  Tell();
  return true;
}

Status WriteGate::Admit(const std::string& what) {
  if (TryOpen()) return OkStatus();
  const std::lock_guard lock(mutex_);
  ++state_.refused;
  const std::string remedy = full_ ? "free space on the disk, or remove a corpus"
                                   : "look at the disk and the kernel's log (dmesg)";
  return ResourceExhaustedError(what + " is refused: the store is read-only (" + state_.reason +
                                "). Questions are still answered. To go on, " + remedy +
                                "; it looks again by itself every few seconds");
}

}  // namespace corpusd
