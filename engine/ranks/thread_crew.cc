#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "engine/ranks/in_process_transport.h"
#include "engine/ranks/rank_crew.h"

namespace corpusd {
namespace {

// One rank: follows whatever group it is given.
class WorkerThread {
 public:
  explicit WorkerThread(std::unique_ptr<RankWorker> worker)
      : worker_(std::move(worker)), thread_([this](const std::stop_token& stop) { Work(stop); }) {}
  ~WorkerThread() {
    thread_.request_stop();
    worker_->Abort(CancelledError("the daemon is stopping"));
    changed_.notify_all();
  }
  WorkerThread(const WorkerThread&) = delete;
  WorkerThread& operator=(const WorkerThread&) = delete;

  // The group before must have ended.
  void Give(RankChannels channels) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !busy_; });
    given_ = std::move(channels);
    busy_ = true;
    changed_.notify_all();
  }

 private:
  void Work(const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    while (changed_.wait(lock, stop, [&] { return given_.control != nullptr; })) {
      RankChannels channels = std::exchange(given_, {});
      lock.unlock();
      (void)worker_->Follow(std::move(channels));  // rank 0 says why it ended
      lock.lock();
      busy_ = false;
      changed_.notify_all();
    }
  }

  const std::unique_ptr<RankWorker> worker_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  RankChannels given_;
  bool busy_ = false;
  std::jthread thread_;
};

class ThreadCrew final : public RankCrew {
 public:
  ThreadCrew(std::chrono::milliseconds timeout, uint32_t stride)
      : timeout_(timeout), stride_(stride) {}

  void Add(std::unique_ptr<RankWorker> worker) {
    threads_.push_back(std::make_unique<WorkerThread>(std::move(worker)));
  }
  std::vector<std::string> names() const override {
    std::vector<std::string> names;
    for (size_t rank = 0; rank < (threads_.size() + 1) * stride_; ++rank) {
      names.push_back("thread " + std::to_string(rank));
    }
    return names;
  }
  Result<Group> Muster(const std::function<bool()>& stopped) override {
    if (stopped()) return CancelledError("the daemon is stopping");
    auto transports = MakeInProcessTransports(static_cast<uint32_t>(threads_.size() + 1), timeout_);
    Group group;
    for (uint32_t rank = 0; rank < transports.size(); ++rank) {
      RankChannels channels;
      channels.control = std::move(transports[rank]);
      group.members.push_back(rank * stride_);
      if (rank == 0) {
        group.channels = std::move(channels);
      } else {
        threads_[rank - 1]->Give(std::move(channels));
      }
    }
    return group;
  }
  bool MoreWait() override { return false; }

 private:
  const std::chrono::milliseconds timeout_;
  const uint32_t stride_;
  std::vector<std::unique_ptr<WorkerThread>> threads_;
};

}  // namespace

unsigned RankThreads(unsigned threads, size_t ranks) {
  if (threads == 0) threads = std::thread::hardware_concurrency();
  return std::max(1U, static_cast<unsigned>(threads / ranks));
}

Result<std::unique_ptr<RankCrew>> MakeThreadCrew(const ThreadCrewOptions& options) {
  auto crew = std::make_unique<ThreadCrew>(options.timeout, options.stride);
  for (const RankWorkerOptions& own : options.workers) {
    ASSIGN_OR_RETURN(auto worker, RankWorker::Create(own));
    crew->Add(std::move(worker));
  }
  return std::unique_ptr<RankCrew>(std::move(crew));
}

}  // namespace corpusd
