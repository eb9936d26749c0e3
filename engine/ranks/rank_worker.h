// engine/ranks/rank_worker.h -- any rank but the first: a model on a device, and the blocks of its
// share, doing what rank 0 tells it. Owns no corpus: what it has is rank 0's, by digest, and can be
// had again. One thread follows; Abort comes from any.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/calibration/kv_calibration.h"
#include "engine/kv/sink_page.h"
#include "engine/model/model_source.h"
#include "engine/ranks/leader_prefill.h"
#include "engine/ranks/rank_blocks.h"
#include "engine/ranks/rank_message.h"
#include "engine/ranks/rank_pages.h"
#include "engine/ranks/rank_shelf.h"
#include "engine/ranks/ranked_backend.h"
#include "engine/ranks/ranked_prefill.h"
#include "engine/ranks/shared_weights.h"
#include "engine/ranks/tensor_devices.h"

namespace corpusd {

struct RankWorkerOptions {
  std::string model_path;
  std::string device = "cpu";
  std::string isa = "auto";
  std::string weights = "auto";  // as EngineOptions has it, alike on all ranks
  unsigned threads = 0;          // 0: all cores
  std::string cache_dir;         // where the weights digest is remembered; "": nowhere
  uint64_t device_bytes = 0;     // for copies of blocks on a device; 0: half of what is free
  uint64_t host_bytes = 0;       // of blocks in memory; unless
  BlockStore* store = nullptr;   // it shares rank 0's process and store
  RankShelf* shelf = nullptr;    // its own disk; null: none. Must outlive it
  std::shared_ptr<DeviceSource> devices = HostDevices();
  // The ranks that have parts of its weights: threads, or processes at addresses of theirs.
  struct Shared {
    uint32_t ranks = 1;                  // this one included
    uint32_t first_rank = 0;             // this one, of all
    std::vector<std::string> addresses;  // of the others; none: they are threads
    std::chrono::milliseconds timeout{300'000};
    std::function<void(const std::string& what)> on_change = {};  // any thread; may be empty
  };
  Shared shared = {};
  // Or the devices that share them, `device` first; one, none: all are on that.
  std::vector<std::string> tensor_devices = {};
};

// What all ranks of a group must compute with: devices of one kind have one arithmetic.
std::string ArithmeticOf(const Backend& backend);

class RankWorker {
 public:
  // Loads the model. kUnimplemented: its device has no attention over several ranks.
  static Result<std::unique_ptr<RankWorker>> Create(const RankWorkerOptions& options);
  ~RankWorker();

  // What all ranks must have alike: the weights' digest, and the arithmetic.
  const std::string& weights() const { return weights_; }
  std::string backend() const { return ArithmeticOf(*local_); }
  // Whether its device answers no more. Any thread.
  bool lost() const { return lost_; }
  // Calls the ranks that have parts of its weights, where one was lost. REQUIRES: it follows
  // nobody.
  Status CallWeights();
  // Makes the way between the devices of a group, if they need one; to be called once for each, by
  // all its ranks, before Follow.
  Status ConnectDevices(RankChannels& channels, std::chrono::milliseconds timeout) {
    return channels.ConnectDevices(*devices_, device_, timeout);
  }
  // Does what rank 0 says until the group ends. RETURNS why it did.
  Status Follow(RankChannels channels);
  // Ends the group that it follows, if it follows one.
  void Abort(const Status& why);

 private:
  // A sequence that rank 0 opened, and what goes on from it.
  struct Opened {
    std::shared_ptr<RankPages> pages;
    std::unique_ptr<KvSequence> kv;  // when all of them are there
  };
  struct Prefilled;
  struct Documents;

  RankWorker();
  Status LoadModelOver(const ModelSource& source, const RankWorkerOptions& options);
  Transport& control() const { return *channels_.control; }
  Status FollowNext();
  Status Do(RankVerb verb, std::string_view body);
  Status Send(std::span<const std::byte> bytes) { return control().Send(0, bytes)->Wait(); }
  Status Answer(const Status& status);

  Status Beat();
  Status Drop(RankMessageReader& message);
  Status TakeCalibration(RankMessageReader& message);
  Status Open(RankMessageReader& message);
  Status Fill(RankMessageReader& message);
  Status Load(RankMessageReader& message);
  Status Fork(RankMessageReader& message);
  Status Close(RankMessageReader& message);
  Status Forward(RankMessageReader& message);
  Status BeginPrefill(RankMessageReader& message);
  Status Segment(RankMessageReader& message);
  Status BeginDocuments(RankMessageReader& message);
  Status Windows(RankMessageReader& message);

  Result<KvLayout> LayoutOf(const std::string& format, const std::string& calibration,
                            std::span<const TokenId> first);
  BlockPlace PlaceOf(std::span<const Digest> chain, uint64_t block) const;
  Status Settle(Prefilled& prefill);
  Status Shelve(Prefilled& prefill);
  Status BringToHost(Prefilled& prefill);
  Status GiveBlocks(const Prefilled& prefill, const RankedPass& pass);
  Result<Opened*> Find(uint64_t id);

  std::string weights_, device_;
  std::shared_ptr<DeviceSource> devices_;
  std::atomic<bool> lost_{false};
  std::unique_ptr<Backend> local_;
  std::unique_ptr<TensorDevices> tensor_devices_;  // over it; null: all weights are on it
  std::unique_ptr<RankedBackend> backend_;         // over them
  std::unique_ptr<SharedWeights> shared_;          // null: all weights are here
  std::unique_ptr<Model> model_;
  ComputeGate gate_;  // for code that takes turns; nobody else does here
  std::unique_ptr<RankBlocks> blocks_;
  std::unique_ptr<BlockHolder> holder_;
  RankShelf* shelf_ = nullptr;
  std::map<std::string, std::unique_ptr<KvCalibration>> calibrations_;  // by digest
  SinkPages sinks_;
  std::mutex mutex_;  // of channels_, for Abort
  RankChannels channels_;
  std::unique_ptr<ForwardScratch> scratch_;
  std::map<uint64_t, Opened> opened_;
  std::map<uint64_t, std::unique_ptr<Prefilled>> prefills_;
  std::map<uint64_t, std::unique_ptr<Documents>> documents_;
};

}  // namespace corpusd
