#include "store/lease_table.h"

#include <algorithm>
#include <utility>

#include "store/base/check.h"
#include "store/base/clock.h"

namespace corpusd {
namespace {

std::shared_ptr<LeaseHolder>& CurrentHolder() {
  thread_local std::shared_ptr<LeaseHolder> holder;
  return holder;
}

}  // namespace

LeaseHolder::LeaseHolder(std::string name, int64_t lifetime_ms, std::function<void()> on_overdue)
    : name_(std::move(name)),
      lifetime_ms_(lifetime_ms),
      on_overdue_(std::move(on_overdue)),
      renewed_at_ms_(WallTimeMs()) {}

void LeaseHolder::Renew() { renewed_at_ms_.store(WallTimeMs(), std::memory_order_relaxed); }

bool LeaseHolder::AskToLetGo() {
  if (asked_.exchange(true)) return false;
  if (on_overdue_) on_overdue_();
  return true;
}

LeaseScope::LeaseScope(std::shared_ptr<LeaseHolder> holder)
    : outer_(std::exchange(CurrentHolder(), std::move(holder))) {}

LeaseScope::~LeaseScope() { CurrentHolder() = std::move(outer_); }

void LeaseScope::Renew() {
  if (CurrentHolder() != nullptr) CurrentHolder()->Renew();
}

// Every ref given out shares it. `blocks` is empty while a prefetch holds them for it.
class LeaseTable::Lease {
 public:
  ~Lease() {
    const std::lock_guard lock(state->mutex);
    state->leases.erase(id);
  }

  uint64_t id = 0;
  std::shared_ptr<LeaseHolder> holder;
  int64_t since_ms = 0;
  uint64_t bytes = 0;
  std::vector<Digest> digests;
  std::vector<BlockRef> blocks;
  std::shared_ptr<State> state;
};

LeaseTable::LeaseTable() : state_(std::make_shared<State>()) {}

std::shared_ptr<LeaseTable::Lease> LeaseTable::Begin(std::vector<Digest> digests, uint64_t bytes) {
  auto lease = std::make_shared<Lease>();
  lease->state = state_;
  lease->since_ms = WallTimeMs();
  lease->holder = CurrentHolder();
  if (lease->holder == nullptr) {
    lease->holder = std::make_shared<LeaseHolder>("the daemon", 0, nullptr);
  }
  lease->bytes = bytes;
  lease->digests = std::move(digests);
  {
    const std::lock_guard lock(state_->mutex);
    lease->id = state_->next_id++;
    if (!lease->digests.empty()) state_->leases[lease->id] = lease.get();
  }
#ifndef NDEBUG
  const auto contradictions = Contradictions();
  CHECK(contradictions.empty()) << contradictions.front();
#endif
  return lease;
}

std::vector<BlockRef> LeaseTable::Hold(const std::shared_ptr<Lease>& lease,
                                       std::vector<BlockRef> refs) {
  lease->blocks = refs;
  for (BlockRef& ref : refs) {
    if (ref.valid()) ref = ref.HeldBy(lease);
  }
  return refs;
}

LeaseInfo LeaseTable::InfoOf(const Lease& lease) {
  LeaseInfo info{lease.id,    lease.holder->name(), lease.digests.size(),
                 lease.bytes, lease.since_ms,       0};
  const int64_t lifetime_ms = lease.holder->lifetime_ms();
  if (lifetime_ms > 0) {
    info.expires_at_ms = std::max(lease.since_ms, lease.holder->renewed_at_ms()) + lifetime_ms;
  }
  return info;
}

std::vector<LeaseInfo> LeaseTable::List() const {
  const std::lock_guard lock(state_->mutex);
  std::vector<LeaseInfo> leases;
  for (const auto& [id, lease] : state_->leases) leases.push_back(InfoOf(*lease));
  return leases;
}

size_t LeaseTable::AskOverdue(int64_t now_ms) {
  std::vector<std::shared_ptr<LeaseHolder>> overdue;
  {
    const std::lock_guard lock(state_->mutex);
    for (const auto& [id, lease] : state_->leases) {
      const int64_t end = InfoOf(*lease).expires_at_ms;
      if (end != 0 && end <= now_ms) overdue.push_back(lease->holder);
    }
  }
  size_t asked = 0;
  for (const auto& holder : overdue) asked += holder->AskToLetGo() ? 1 : 0;
  return asked;
}

std::vector<Digest> LeaseTable::HeldDigests() const {
  const std::lock_guard lock(state_->mutex);
  std::vector<Digest> digests;
  for (const auto& [id, lease] : state_->leases) {
    digests.insert(digests.end(), lease->digests.begin(), lease->digests.end());
  }
  return digests;
}

std::vector<std::string> LeaseTable::Contradictions() const {
  const std::lock_guard lock(state_->mutex);
  std::vector<std::string> found;
  for (const auto& [id, lease] : state_->leases) {
    const LeaseInfo info = InfoOf(*lease);
    const std::string name = "lease " + std::to_string(id);
    if (info.id != id) found.push_back(name + " is listed under another number");
    if (info.owner.empty()) found.push_back(name + " has no owner");
    if (info.blocks == 0) found.push_back(name + " holds no block");
    if (info.expires_at_ms != 0 && info.expires_at_ms < info.since_ms) {
      found.push_back(name + " ends before it began");
    }
    if (info.bytes == 0) found.push_back(name + " holds no byte");
  }
  return found;
}

}  // namespace corpusd
