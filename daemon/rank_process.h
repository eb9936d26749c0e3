// daemon/rank_process.h -- corpusd as a rank but the first of a rank file: a model, memory and disk
// for its share of blocks, a thread that does what rank 0 says and one that serves its disk; or,
// where ranks share weights, a part of those and a thread that computes its products. No clients,
// no catalogue. Start and Stop on one thread.
#pragma once

#include <atomic>
#include <functional>
#include <future>
#include <memory>
#include <string>

#include "daemon/options.h"
#include "engine/ranks/rank_crew.h"
#include "engine/ranks/weight_rank.h"

namespace corpusd {

class RankProcess {
 public:
  // on_end: told, on its thread, when it cannot go on; Stop says why.
  static Result<std::unique_ptr<RankProcess>> Start(const Options& options,
                                                    std::function<void()> on_end);
  ~RankProcess() { (void)Stop(); }

  // "corpusd 0.1.0 rank 1 of 3 ready: 10.0.0.2:9000, backend cpu-avx2"
  const std::string& ReadyLine() const { return ready_line_; }
  // RETURNS why it ended by itself, or Ok.
  Status Stop();

 private:
  RankProcess() = default;
  Status StartText(const Options& options, RankProcessOptions rank,
                   const std::function<void()>& on_end);
  Status StartWeights(const Options& options, const RankProcessOptions& rank,
                      const std::function<void()>& on_end);

  std::string ready_line_;
  std::atomic<bool> stopping_{false};
  std::unique_ptr<RankShelf> shelf_;
  std::unique_ptr<RankWorker> worker_;  // null: it has weights alone
  std::unique_ptr<WeightRank> weights_;
  Socket listener_;
  std::future<Status> following_, serving_;
};

}  // namespace corpusd
