// engine/ranks/rank_group.h -- keeps a group of ranks for an engine: musters one, beats, and when
// it has ended musters another of those that are there. Without a group the engine computes alone.
// Thread-safe; one thread of its own.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "engine/ranks/rank_crew.h"
#include "engine/ranks/rank_leader.h"
#include "engine/ranks/rank_status.h"

namespace corpusd {

class RankGroup {
 public:
  struct Options {
    std::chrono::milliseconds beat{1'000};
    std::function<void(const std::string& what)> on_change;  // on the group's thread; may be empty
  };
  RankGroup(const RankContext& context, std::unique_ptr<RankCrew> crew, Options options);
  ~RankGroup();
  RankGroup(const RankGroup&) = delete;
  RankGroup& operator=(const RankGroup&) = delete;

  // Null while there is none.
  std::shared_ptr<RankLeader> leader() const;
  RanksReport report() const;

 private:
  void Keep(const std::stop_token& stop);
  // One group, from its forming to its end.
  void KeepOne(RankCrew::Group group, const std::stop_token& stop);
  void LookAtShelves();
  bool Wait(std::chrono::milliseconds time, const std::stop_token& stop);
  void Tell(const std::string& what) const;

  const RankContext context_;
  const std::unique_ptr<RankCrew> crew_;
  const Options options_;
  mutable std::mutex mutex_;
  std::condition_variable_any stopped_;
  std::shared_ptr<RankLeader> leader_;
  RanksReport report_;  // of groups that have ended, as to passes
  std::jthread thread_;
};

}  // namespace corpusd
