#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "engine/ranks/in_process_transport.h"
#include "engine/ranks/rank_crew.h"

namespace corpusd {
namespace {

// A look at whether all should stop.
constexpr std::chrono::milliseconds kLook{200};

// One rank: follows whatever group it is given.
class WorkerThread {
 public:
  WorkerThread(std::unique_ptr<RankWorker> worker, std::chrono::milliseconds timeout)
      : worker_(std::move(worker)),
        timeout_(timeout),
        thread_([this](const std::stop_token& stop) { Work(stop); }) {}
  ~WorkerThread() {
    thread_.request_stop();
    worker_->Abort(CancelledError("the daemon is stopping"));
    changed_.notify_all();
  }
  WorkerThread(const WorkerThread&) = delete;
  WorkerThread& operator=(const WorkerThread&) = delete;

  bool lost() const { return worker_->lost(); }
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
      // Rank 0 says why it ended.
      if (worker_->ConnectDevices(channels, timeout_).ok()) {
        (void)worker_->Follow(std::move(channels));
      }
      channels = {};
      lock.lock();
      busy_ = false;
      changed_.notify_all();
    }
  }

  const std::unique_ptr<RankWorker> worker_;
  const std::chrono::milliseconds timeout_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  RankChannels given_;
  bool busy_ = false;
  std::jthread thread_;
};

class ThreadCrew final : public RankCrew {
 public:
  explicit ThreadCrew(const ThreadCrewOptions& options)
      : timeout_(options.timeout),
        device_(options.device),
        stride_(options.stride),
        devices_(options.devices) {
    AddNames(device_, options.tensor_devices);
  }

  void Add(std::unique_ptr<RankWorker> worker, const RankWorkerOptions& options) {
    AddNames(options.device, options.tensor_devices);
    threads_.push_back(std::make_unique<WorkerThread>(std::move(worker), timeout_));
  }
  std::vector<std::string> names() const override { return names_; }
  Result<Group> Muster(const std::function<bool()>& stopped) override {
    Group group;
    group.members.push_back(0);
    for (uint32_t i = 0; i < threads_.size(); ++i) {
      if (!threads_[i]->lost()) group.members.push_back((i + 1) * stride_);
    }
    // A device that does not answer will not any more.
    while (group.members.size() == 1 && !stopped()) std::this_thread::sleep_for(kLook);
    if (stopped()) return CancelledError("the daemon is stopping");
    auto transports =
        MakeInProcessTransports(static_cast<uint32_t>(group.members.size()), timeout_);
    for (size_t i = 1; i < group.members.size(); ++i) {
      RankChannels channels;
      channels.control = std::move(transports[i]);
      threads_[group.members[i] / stride_ - 1]->Give(std::move(channels));
    }
    group.channels.control = std::move(transports.front());
    RETURN_IF_ERROR(group.channels.ConnectDevices(*devices_, device_, timeout_));
    return group;
  }
  bool MoreWait() override { return false; }

 private:
  // Of a rank and those that share its weights.
  void AddNames(const std::string& device, const std::vector<std::string>& devices) {
    for (uint32_t i = 0; i < stride_; ++i) {
      const std::string& own = i < devices.size() ? devices[i] : device;
      names_.push_back("thread " + std::to_string(names_.size()) +
                       (own == "cpu" ? "" : ", " + own));
    }
  }

  const std::chrono::milliseconds timeout_;
  const std::string device_;
  const uint32_t stride_;
  const std::shared_ptr<DeviceSource> devices_;
  std::vector<std::string> names_;
  std::vector<std::unique_ptr<WorkerThread>> threads_;
};

}  // namespace

unsigned RankThreads(unsigned threads, size_t ranks) {
  if (threads == 0) threads = std::thread::hardware_concurrency();
  return std::max(1U, static_cast<unsigned>(threads / ranks));
}

Result<std::unique_ptr<RankCrew>> MakeThreadCrew(const ThreadCrewOptions& options) {
  auto crew = std::make_unique<ThreadCrew>(options);
  for (const RankWorkerOptions& own : options.workers) {
    ASSIGN_OR_RETURN(auto worker, RankWorker::Create(own));
    crew->Add(std::move(worker), own);
  }
  return std::unique_ptr<RankCrew>(std::move(crew));
}

}  // namespace corpusd
