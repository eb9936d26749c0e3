#include "engine/ranks/rank_group.h"

#include <utility>

namespace corpusd {

RankGroup::RankGroup(const RankContext& context, std::unique_ptr<RankCrew> crew, Options options)
    : context_(context), crew_(std::move(crew)), options_(std::move(options)) {
  for (const std::string& name : crew_->names()) {
    RankStatus status;
    status.rank = static_cast<uint32_t>(report_.ranks.size());
    status.name = name;
    status.state = status.rank == 0 ? "leads" : "missing";
    report_.ranks.push_back(std::move(status));
  }
  thread_ = std::jthread([this](const std::stop_token& stop) { Keep(stop); });
}

RankGroup::~RankGroup() {
  thread_.request_stop();
  if (const auto leader = this->leader()) (void)leader->End(CancelledError("rank 0 is stopping"));
}

std::shared_ptr<RankLeader> RankGroup::leader() const {
  const std::lock_guard lock(mutex_);
  return leader_ != nullptr && leader_->status().ok() ? leader_ : nullptr;
}

RanksReport RankGroup::report() const {
  const std::lock_guard lock(mutex_);
  RanksReport report = report_;
  if (leader_ != nullptr) report.passes += leader_->passes();
  return report;
}

void RankGroup::Tell(const std::string& what) const {
  if (options_.on_change) options_.on_change(what);
}

void RankGroup::LookAtShelves() {
  if (context_.shelves == nullptr) return;
  for (uint32_t rank = 1; rank < crew_->names().size(); ++rank) {
    const ShelfUsage usage = context_.shelves->Usage(rank).value_or(ShelfUsage{});
    const std::lock_guard lock(mutex_);
    report_.ranks[rank].disk_used_bytes = usage.used_bytes;
    report_.ranks[rank].disk_capacity_bytes = usage.capacity_bytes;
  }
}

bool RankGroup::Wait(std::chrono::milliseconds time, const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  return !stopped_.wait_for(lock, stop, time, [&] { return stop.stop_requested(); });
}

void RankGroup::Keep(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    LookAtShelves();
    auto group = crew_->Muster([&] { return stop.stop_requested(); });
    if (group.ok()) {
      KeepOne(*std::move(group), stop);
    } else if (!stop.stop_requested()) {
      Tell("no group of ranks: " + group.status().message());
    }
    if (!Wait(options_.beat, stop)) return;
  }
}

void RankGroup::KeepOne(RankCrew::Group group, const std::stop_token& stop) {
  const auto leader =
      std::make_shared<RankLeader>(context_, std::move(group.channels), group.members);
  {
    const std::lock_guard lock(mutex_);
    leader_ = leader;
    ++report_.groups;
    for (RankStatus& status : report_.ranks) status.state = status.rank == 0 ? "leads" : "missing";
    for (const uint32_t rank : group.members) {
      if (rank > 0) report_.ranks[rank].state = "follows";
      report_.ranks[rank].error.clear();
    }
  }
  Tell("a group of " + std::to_string(group.members.size()) + " ranks of " +
       std::to_string(report_.ranks.size()));
  bool anew = false;
  while (leader->status().ok() && Wait(options_.beat, stop)) {
    LookAtShelves();
    const auto holdings = leader->Beat();
    if (!holdings.ok()) break;
    {
      const std::lock_guard lock(mutex_);
      for (size_t i = 1; i < group.members.size(); ++i) {
        RankStatus& status = report_.ranks[group.members[i]];
        status.used_bytes = (*holdings)[i].used_bytes;
        status.capacity_bytes = (*holdings)[i].capacity_bytes;
        status.device_used_bytes = (*holdings)[i].device_used_bytes;
        status.device_capacity_bytes = (*holdings)[i].device_capacity_bytes;
      }
    }
    anew = !leader->busy() && crew_->MoreWait();
    if (anew) break;
  }
  const Status why = leader->End(CancelledError("a group of other ranks forms"));
  const bool lost = !anew && !stop.stop_requested();
  {
    const std::lock_guard lock(mutex_);
    leader_ = nullptr;
    report_.passes += leader->passes();
    for (RankStatus& status : report_.ranks) {
      if (status.rank == 0) continue;
      status.state = "missing";
      status.error = why.message();
      status.used_bytes = status.capacity_bytes = 0;
      status.device_used_bytes = status.device_capacity_bytes = 0;
    }
    if (lost) ++report_.lost;
  }
  if (lost) Tell("the group of ranks ended: " + why.message());
}

}  // namespace corpusd
