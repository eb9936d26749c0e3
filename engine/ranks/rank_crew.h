// engine/ranks/rank_crew.h -- where the other ranks of a daemon come from: threads of its own
// process, or processes that a rank file names, on this host or others. Musters a group of those
// that are there; says nothing of what a group does. One thread musters.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/ranks/rank_leader.h"
#include "engine/ranks/rank_shelf.h"
#include "engine/ranks/rank_worker.h"

namespace corpusd {

class RankCrew {
 public:
  virtual ~RankCrew() = default;
  // Of all ranks, the first included: "thread 1, cuda:1", "10.0.0.3:9000".
  virtual std::vector<std::string> names() const = 0;
  // A group of rank 0 with others; members: which ranks they are, 0 first. Waits until some are
  // there, and a moment longer for all. kCancelled: `stopped` said so.
  struct Group {
    RankChannels channels;
    std::vector<uint32_t> members;
  };
  virtual Result<Group> Muster(const std::function<bool()>& stopped) = 0;
  // Whether more ranks wait than the last group has.
  virtual bool MoreWait() = 0;
};

// Compute threads of each of so many ranks that share a process: of `threads`, or of all cores if
// that is 0.
unsigned RankThreads(unsigned threads, size_t ranks);
// Ranks as threads of this process, over its store. workers: theirs, in order.
struct ThreadCrewOptions {
  uint32_t stride = 1;         // ranks 0, stride, 2 stride ... of all: the others are theirs
  std::string device = "cpu";  // of rank 0
  std::vector<std::string> tensor_devices;  // of rank 0, as those of workers
  std::shared_ptr<DeviceSource> devices = HostDevices();
  std::vector<RankWorkerOptions> workers;
  std::chrono::milliseconds timeout = kTransferTimeout;
};
Result<std::unique_ptr<RankCrew>> MakeThreadCrew(const ThreadCrewOptions& options);

// What a process must say before it is a rank.
struct RankIdentity {
  std::string weights;  // hex
  std::string backend;  // whose arithmetic
};
struct ProcessCrewOptions {
  std::vector<std::string> addresses;  // by rank: lines of the rank file
  RankIdentity identity;               // rank 0's, which the others must have
  uint32_t stride = 1;         // every stride-th follows; those between have parts of its weights
  std::string device = "cpu";  // rank 0's
  std::shared_ptr<DeviceSource> devices = HostDevices();
  std::chrono::milliseconds timeout = kTransferTimeout;
  std::chrono::milliseconds patience{5'000};  // for ranks that are not there, once one is
  // Told of a rank that offers its disk (rank_shelf.h), on the mustering thread; may be empty.
  std::function<void(uint32_t rank, Socket socket)> on_shelf;
};
// Listens at the first address from now on.
Result<std::unique_ptr<RankCrew>> MakeProcessCrew(const ProcessCrewOptions& options);

// Rank `rank` of a rank file: asks rank 0 to be in its group, follows, asks again, until `stopped`.
// kFailedPrecondition: rank 0 refuses it, such as for other weights.
struct RankProcessOptions {
  std::vector<std::string> addresses;
  uint32_t stride = 1;  // as rank 0 has it
  uint32_t rank = 1;
  std::chrono::milliseconds timeout = kTransferTimeout;
  std::function<void(const std::string& what)> on_change;  // for the log; may be empty
};
Status FollowRankZero(RankWorker& worker, const RankProcessOptions& options,
                      const std::function<bool()>& stopped);
// Offers this rank's disk to rank 0, again and again, and serves it, until `stopped`.
// kFailedPrecondition: as above, or the folder is of another daemon.
Status ServeShelf(RankShelf& shelf, const RankWorker& worker, const RankProcessOptions& options,
                  const std::function<bool()>& stopped);

// The lines of a rank file: "host:port" of every rank, rank 0 first; '#' begins a remark.
// kInvalidArgument names the line that is no address.
Result<std::vector<std::string>> ReadRankFile(const std::string& path);
// kInvalidArgument unless so many ranks can share weights, `stride` by `stride`.
Status CheckStride(size_t ranks, uint32_t stride, const std::string& path);

}  // namespace corpusd
