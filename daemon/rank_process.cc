#include "daemon/rank_process.h"

#include <exception>
#include <utility>

#include "daemon/log.h"
#include "daemon/version.h"
#include "store/base/units.h"

namespace corpusd {
namespace {

// What every rank is told of the model. Rank: RankWorkerOptions or WeightRankOptions.
template <class Rank>
void SetModel(const Options& options, Rank* rank) {
  rank->model_path = options.model_path;
  rank->device = options.device == "auto" ? "cpu" : RankDevices(options).front();
  rank->isa = options.isa;
  rank->weights = options.weights;
  rank->threads = options.threads;
}

// On a thread of its own, whose failure ends the process.
std::future<Status> Run(std::function<void()> on_end, std::function<Status()> work) {
  return std::async(std::launch::async, [on_end = std::move(on_end), work = std::move(work)] {
    Status status;
    try {
      status = work();
    } catch (const std::exception& error) {  // out of memory: the root of this thread
      status = InternalError(std::string("the rank failed: ") + error.what());
    }
    if (!status.ok()) on_end();
    return status;
  });
}

}  // namespace

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
  rank.stride = RankFileStride(options);
  RETURN_IF_ERROR(CheckStride(rank.addresses.size(), rank.stride, options.rank_file));
  rank.on_change = [](const std::string& what) { Log(LogLevel::kInfo, "rank", {{"what", what}}); };
  std::unique_ptr<RankProcess> process(new RankProcess);
  process->ready_line_ = "corpusd " + std::string(kVersion) + " rank " + std::to_string(rank.rank) +
                         " of " + std::to_string(rank.addresses.size()) +
                         " ready: " + rank.addresses[rank.rank];
  RETURN_IF_ERROR(rank.rank % rank.stride == 0 ? process->StartText(options, rank, on_end)
                                               : process->StartWeights(options, rank, on_end));
  return process;
}

Status RankProcess::StartText(const Options& options, RankProcessOptions rank,
                              const std::function<void()>& on_end) {
  RankWorkerOptions worker;
  SetModel(options, &worker);
  worker.host_bytes = options.host_bytes;
  worker.device_bytes = options.device_bytes;
  const auto own = rank.addresses.begin() + rank.rank;
  worker.shared = {
      rank.stride, rank.rank, {own + 1, own + rank.stride}, rank.timeout, rank.on_change};
  if (options.tensor_parallel > rank.stride) worker.tensor_devices = RankDevices(options);
  ASSIGN_OR_RETURN(shelf_, RankShelf::Open(options.data_dir, options.disk_bytes));
  worker.shelf = shelf_.get();
  ASSIGN_OR_RETURN(worker_, RankWorker::Create(worker));
  ready_line_ += ", backend " + worker_->backend();
  const auto stopped = [this] { return stopping_.load(); };
  following_ =
      Run(on_end, [this, rank, stopped] { return FollowRankZero(*worker_, rank, stopped); });
  serving_ =
      Run(on_end, [this, rank, stopped] { return ServeShelf(*shelf_, *worker_, rank, stopped); });
  return OkStatus();
}

Status RankProcess::StartWeights(const Options& options, const RankProcessOptions& rank,
                                 const std::function<void()>& on_end) {
  WeightRankOptions part;
  SetModel(options, &part);
  part.seat = {rank.rank % rank.stride, rank.stride};
  ASSIGN_OR_RETURN(weights_, WeightRank::Create(part));
  std::string bound;
  ASSIGN_OR_RETURN(listener_, ListenTcp(rank.addresses[rank.rank], &bound));
  ready_line_ += ", " + FormatBytes(weights_->weight_bytes()) + " of the weights of rank " +
                 std::to_string(rank.rank - part.seat.rank) + ", backend " + weights_->backend();
  serving_ = Run(on_end, [this, on_change = rank.on_change] {
    return weights_->ServeAll(
        listener_, [this] { return stopping_.load(); }, on_change);
  });
  return OkStatus();
}

Status RankProcess::Stop() {
  if (!serving_.valid()) return OkStatus();
  stopping_ = true;
  if (worker_ == nullptr) return serving_.get();
  worker_->Abort(CancelledError("it was told to stop"));
  const Status followed = following_.get(), served = serving_.get();
  return followed.ok() ? served : followed;
}

}  // namespace corpusd
