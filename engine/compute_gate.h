// engine/compute_gate.h -- who computes next. A backend serves one thread at a time; the gate hands
// out turns: questions before prefills, first come first served within each. A prefill offers its
// turn between layers, so a question waits for one layer of one chunk at most. Thread-safe.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>

namespace corpusd {

enum class ComputePriority : uint8_t { kQuestion = 0, kPrefill = 1 };

class ComputeGate {
 public:
  // Holds the turn while it lives. Move-free: lives on the stack of the computing thread.
  class Turn {
   public:
    Turn(ComputeGate& gate, ComputePriority priority) : gate_(gate), priority_(priority) {
      gate_.Enter(priority_);
    }
    ~Turn() { gate_.Leave(); }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;
    // Lets every waiter of a higher priority go first, then takes the turn back. What a backend has
    // met by then must have been asked for (Synchronize): who goes first would take it for its own.
    void Offer() { gate_.Offer(priority_); }
    // Whether somebody would go first.
    bool wanted() { return gate_.IsWanted(priority_); }
    // Gives the turn up while `wait` blocks, to whoever wants it.
    template <typename Wait>
    void Pause(const Wait& wait) {
      gate_.Leave();
      wait();
      gate_.Enter(priority_);
    }

   private:
    ComputeGate& gate_;
    const ComputePriority priority_;
  };

 private:
  void Enter(ComputePriority priority);
  void Leave();
  void Offer(ComputePriority priority);
  bool IsWanted(ComputePriority priority);
  bool IsWantedLocked(ComputePriority priority) const;
  void EnterLocked(std::unique_lock<std::mutex>& lock, ComputePriority priority);
  bool MayGo(uint64_t ticket, ComputePriority priority) const;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<uint64_t> waiting_[2];  // tickets, by priority
  uint64_t next_ticket_ = 0;
  bool busy_ = false;
};

}  // namespace corpusd
