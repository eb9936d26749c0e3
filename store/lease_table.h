// store/lease_table.h -- LeaseTable: who holds blocks in memory, since when and until when. A lease
// is what one Fetch or Prefetch gave out; it is listed until the last of it has gone, so none can
// be forgotten. Not a pin: it promises nothing beyond the reader's life, and when its time is over
// its holder is asked to let go (memory in use is never pulled away). Thread-safe; leases may
// outlive the table.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "store/block_ref.h"

namespace corpusd {

// A reader: a connection's call, or a part of the daemon.
class LeaseHolder {
 public:
  // lifetime_ms: how long it may hold blocks without a sign of life; 0: as long as it likes.
  // on_overdue: asks it to let go; called once, from any thread; may be null.
  LeaseHolder(std::string name, int64_t lifetime_ms, std::function<void()> on_overdue);

  const std::string& name() const { return name_; }
  int64_t lifetime_ms() const { return lifetime_ms_; }
  // Unix time of the last sign of life.
  int64_t renewed_at_ms() const { return renewed_at_ms_.load(std::memory_order_relaxed); }
  void Renew();
  // The first call asks the holder to let go. RETURNS whether this was it.
  bool AskToLetGo();

 private:
  const std::string name_;
  const int64_t lifetime_ms_;
  const std::function<void()> on_overdue_;
  std::atomic<int64_t> renewed_at_ms_;
  std::atomic<bool> asked_{false};
};

// Leases taken on this thread while the scope lives are the holder's. Scopes nest.
class LeaseScope {
 public:
  explicit LeaseScope(std::shared_ptr<LeaseHolder> holder);
  ~LeaseScope();
  LeaseScope(const LeaseScope&) = delete;
  LeaseScope& operator=(const LeaseScope&) = delete;

  // A sign of life of this thread's holder, if it has one.
  static void Renew();

 private:
  std::shared_ptr<LeaseHolder> outer_;
};

struct LeaseInfo {
  uint64_t id = 0;
  std::string owner;
  uint64_t blocks = 0;
  uint64_t bytes = 0;
  int64_t since_ms = 0;
  int64_t expires_at_ms = 0;  // 0: never
};

class LeaseTable {
 public:
  class Lease;  // one lease; it is listed while anyone has it

  LeaseTable();

  // Lists a lease of this thread's holder on these blocks; without a block it is not listed.
  std::shared_ptr<Lease> Begin(std::vector<Digest> digests, uint64_t bytes);
  // RETURNS the refs in order, each of which now keeps the lease, and thereby all of its blocks.
  static std::vector<BlockRef> Hold(const std::shared_ptr<Lease>& lease,
                                    std::vector<BlockRef> refs);
  std::vector<LeaseInfo> List() const;  // the oldest first
  // Asks the holders of leases whose time is over to let go. RETURNS how many it asked.
  size_t AskOverdue(int64_t now_ms);
  // Digests that a lease holds, each as often as it is held.
  std::vector<Digest> HeldDigests() const;
  // Sentences about leases that contradict what always holds: an owner, a block, an end not before
  // the beginning. None unless there is a bug.
  std::vector<std::string> Contradictions() const;

 private:
  struct State {
    std::mutex mutex;
    uint64_t next_id = 1;
    std::map<uint64_t, Lease*> leases;
  };
  static LeaseInfo InfoOf(const Lease& lease);

  std::shared_ptr<State> state_;
};

}  // namespace corpusd
