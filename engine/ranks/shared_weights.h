// engine/ranks/shared_weights.h -- the ranks that have parts of the weights of one that has the
// text: threads of its process, or processes at addresses of their own, which it calls. Greets
// them, notices when one has gone, and calls again until all are there. Thread-safe, unless it says
// otherwise.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "engine/ranks/weight_backend.h"
#include "engine/ranks/weight_rank.h"

namespace corpusd {

struct SharedWeightsOptions {
  // "host:port" of the others, in order; none: they are threads.
  std::vector<std::string> addresses;
  uint32_t first_rank = 0;  // of the rank file, this one's; those that follow it are the others
  // What each loads; its seat says among how many the weights are shared. Of processes, what they
  // must have loaded.
  WeightRankOptions part;
  std::string digest;                           // of the weights
  std::chrono::milliseconds timeout{300'000};   // for an answer
  std::chrono::milliseconds patience{120'000};  // for ranks that are not there at the start
  std::function<void(const std::string& what)> on_change;  // any thread; may be empty
};

class SharedWeights {
 public:
  // local: what computes this rank's part; must outlive this. Waits until all are there.
  // kFailedPrecondition: one has other weights, or another part of them; kUnavailable names one
  // that is not there.
  static Result<std::unique_ptr<SharedWeights>> Open(Backend& local,
                                                     const SharedWeightsOptions& options);
  ~SharedWeights();
  SharedWeights(const SharedWeights&) = delete;
  SharedWeights& operator=(const SharedWeights&) = delete;

  // Models are loaded over it.
  WeightBackend& backend() { return *backend_; }
  // Ok: all are there.
  Status Look() { return backend_->Look(); }
  // Calls those that are not there, once. RETURNS Ok if all are. REQUIRES: nobody computes, until
  // it returns.
  Status CallAgain() {
    return CallAgain([](const std::function<void()>& change) { change(); });
  }
  // Runs what it is given while nobody computes.
  using Alone = std::function<void(const std::function<void()>&)>;
  // The same in the background, as often as need be.
  void CallAgainWhenLost(Alone alone);

  struct Peer {
    uint32_t rank = 0;  // of the rank file, or of the threads
    std::string name;
    uint64_t weight_bytes = 0;  // when it was there last
  };
  std::vector<Peer> peers() const;

 private:
  class ThreadRank;
  explicit SharedWeights(const SharedWeightsOptions& options);
  Status StartThreads();
  Status CallAgain(const Alone& alone);
  Result<WeightBackend::Peer> Call(uint32_t rank, Deadline deadline);
  Result<std::vector<WeightBackend::Peer>> CallAll(std::chrono::milliseconds patience);
  Status Greet(uint32_t rank, const Socket& socket);
  std::string NameOf(uint32_t rank) const;
  void Tell(const std::string& what) const;

  const SharedWeightsOptions options_;
  std::vector<std::unique_ptr<ThreadRank>> threads_;
  std::unique_ptr<WeightBackend> backend_;
  mutable std::mutex mutex_;  // of what follows
  std::vector<uint64_t> bytes_;
  std::jthread watch_;
};

}  // namespace corpusd
