#include "engine/compute_gate.h"

namespace corpusd {

bool ComputeGate::MayGo(uint64_t ticket, ComputePriority priority) const {
  if (busy_) return false;
  const auto level = static_cast<size_t>(priority);
  for (size_t higher = 0; higher < level; ++higher) {
    if (!waiting_[higher].empty()) return false;
  }
  return waiting_[level].front() == ticket;
}

void ComputeGate::EnterLocked(std::unique_lock<std::mutex>& lock, ComputePriority priority) {
  auto& queue = waiting_[static_cast<size_t>(priority)];
  const uint64_t ticket = next_ticket_++;
  queue.push_back(ticket);
  changed_.wait(lock, [&] { return MayGo(ticket, priority); });
  queue.pop_front();
  busy_ = true;
}

void ComputeGate::Enter(ComputePriority priority) {
  std::unique_lock lock(mutex_);
  EnterLocked(lock, priority);
}

void ComputeGate::Leave() {
  {
    const std::lock_guard lock(mutex_);
    busy_ = false;
  }
  changed_.notify_all();
}

bool ComputeGate::IsWantedLocked(ComputePriority priority) const {
  for (size_t higher = 0; higher < static_cast<size_t>(priority); ++higher) {
    if (!waiting_[higher].empty()) return true;
  }
  return false;
}

bool ComputeGate::IsWanted(ComputePriority priority) {
  const std::lock_guard lock(mutex_);
  return IsWantedLocked(priority);
}

void ComputeGate::Offer(ComputePriority priority) {
  std::unique_lock lock(mutex_);
  if (!IsWantedLocked(priority)) return;
  busy_ = false;
  changed_.notify_all();
  EnterLocked(lock, priority);
}

}  // namespace corpusd
