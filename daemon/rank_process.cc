#include "daemon/rank_process.h"

#include <utility>

#include "daemon/log.h"
#include "daemon/version.h"

namespace corpusd {

Result<std::unique_ptr<RankProcess>> RankProcess::Start(const Options& options,
                                                        std::function<void()> on_end) {
  RankProcessOptions rank;
  ASSIGN_OR_RETURN(rank.addresses, ReadRankFile(options.rank_file));
  rank.rank = options.rank;
  rank.timeout = options.rank_timeout;
  if (rank.rank >= rank.addresses.size()) {
    return InvalidArgumentError("rank " + std::to_string(rank.rank) + ": the rank file '" +
                                options.rank_file + "' has " +
                                std::to_string(rank.addresses.size()) + " lines, from 0 on");
  }
  rank.on_change = [](const std::string& what) { Log(LogLevel::kInfo, "rank", {{"what", what}}); };
  RankWorkerOptions worker;
  worker.model_path = options.model_path;
  worker.device = options.device == "auto" ? "cpu" : options.device;
  worker.isa = options.isa;
  worker.weights = options.weights;
  worker.threads = options.threads;
  worker.host_bytes = options.host_bytes;
  worker.device_bytes = options.device_bytes;
  std::unique_ptr<RankProcess> process(new RankProcess);
  ASSIGN_OR_RETURN(process->shelf_, RankShelf::Open(options.data_dir, options.disk_bytes));
  worker.shelf = process->shelf_.get();
  ASSIGN_OR_RETURN(process->worker_, RankWorker::Create(worker));
  process->ready_line_ = "corpusd " + std::string(kVersion) + " rank " + std::to_string(rank.rank) +
                         " of " + std::to_string(rank.addresses.size()) +
                         " ready: " + rank.addresses[rank.rank] + ", backend " +
                         process->worker_->backend();
  RankProcess* const here = process.get();
  const auto stopped = [here] { return here->stopping_.load(); };
  const auto end = [on_end](Status status) {
    if (!status.ok()) on_end();
    return status;
  };
  process->following_ = std::async(std::launch::async, [here, rank, stopped, end] {
    return end(FollowRankZero(*here->worker_, rank, stopped));
  });
  process->serving_ = std::async(std::launch::async, [here, rank, stopped, end] {
    return end(ServeShelf(*here->shelf_, *here->worker_, rank, stopped));
  });
  return process;
}

Status RankProcess::Stop() {
  if (!following_.valid()) return OkStatus();
  stopping_ = true;
  worker_->Abort(CancelledError("it was told to stop"));
  const Status followed = following_.get(), served = serving_.get();
  return followed.ok() ? served : followed;
}

}  // namespace corpusd
