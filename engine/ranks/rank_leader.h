// engine/ranks/rank_leader.h -- rank 0's side of a group of ranks: tells the others what to do, and
// holds sequences that all ranks have. What is computed together happens within a turn of the
// compute gate, so the ranks never have two things at hand; what only waits for them does not. Once
// a rank is lost, or cannot do its part, the group is over: every call returns that one error,
// which names the rank, and the engine goes on without the group. Any thread, unless it says
// otherwise; borrows all it is given.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/prefill/prefill_runner.h"
#include "engine/ranks/rank_message.h"
#include "engine/ranks/rank_pages.h"
#include "engine/ranks/rank_shelf.h"
#include "engine/ranks/ranked_backend.h"
#include "store/block_store.h"

namespace corpusd {

// The ranks of a group: messages of host memory, and the pages and states of attention, which may
// be a device's.
struct RankChannels {
  std::unique_ptr<Transport> own_data;  // null: control carries them, too
  std::unique_ptr<Transport> control;   // goes first: it may tell own_data of the end
  RankChannels() = default;
  RankChannels(RankChannels&&) = default;
  RankChannels& operator=(RankChannels&& other) noexcept {
    control = std::move(other.control);
    own_data = std::move(other.own_data);
    return *this;
  }
  // Makes own_data, if the rank's device needs it. All ranks call alike; an error ends the job.
  Status ConnectDevices(DeviceSource& devices, const std::string& device,
                        std::chrono::milliseconds timeout);
  Transport& data() const { return own_data == nullptr ? *control : *own_data; }
  void Abort(const Status& why) const {
    control->Abort(why);
    if (own_data != nullptr) own_data->Abort(why);
  }
};

// What rank 0 works with. The model is the local one, over `backend`.
struct RankContext {
  const Model& model;
  RankedBackend& backend;
  ComputeGate& gate;
  BlockStore& store;
  BlockHolder& holder;
  RankShelves* shelves = nullptr;  // null: all blocks lie with rank 0
};

class RankLeader : public std::enable_shared_from_this<RankLeader> {
 public:
  // Waits for a turn of the gate, and joins the backend to the group.
  // members: which ranks of the crew they are, 0 first.
  RankLeader(const RankContext& context, RankChannels channels, std::vector<uint32_t> members);

  const RankContext& context() const { return context_; }
  Transport& control() const { return *channels_.control; }
  Transport& data() const { return channels_.data(); }
  const Placement& placement() const { return placement_; }
  uint32_t size() const { return placement_.ranks; }

  // Of each rank of the group the crew's number, and the epoch of its shelf; 0: it has none there.
  std::span<const uint32_t> members() const { return members_; }
  std::vector<uint64_t> ShelfEpochs() const;

  // Why the group is over, or Ok.
  Status status() const;
  // Ends the group: whoever waits for a rank returns. RETURNS its status from now on.
  Status End(const Status& why);
  // Whether sequences are open.
  bool busy() const { return open_ > 0; }
  // What was computed together so far: calls of the model, segments, batches of documents.
  uint64_t passes() const { return passes_; }
  void CountPass() { ++passes_; }
  // Says that rank 0 is there, and asks what the others hold: [size], the first empty.
  Result<std::vector<RankHoldings>> Beat();
  // Blocks that nobody leases leave the memory of the others, unless dry_run: of all of them.
  Result<RankDropped> Drop(std::span<const Digest> digests, bool dry_run);

  // Whether the pages of so many blocks lie with several ranks at all.
  bool Spreads(size_t blocks) const { return blocks > placement_.span_pages; }
  struct Chain {
    std::span<const Digest> digests;
    uint64_t tokens = 0;  // in them
    bool all = false;     // every rank gets every block
  };
  // Pages that all ranks have under one number, from now on; see Close. kCorruption: a block is
  // damaged or missing. kResourceExhausted: a rank's memory has no room for its share.
  struct Share {
    uint64_t id = 0;
    std::shared_ptr<const RankPages> pages;  // rank 0's
    FetchStats stats;                        // of these
    uint64_t sent_blocks = 0;                // that other ranks had not at hand
  };
  Result<Share> Open(const KvLayout& layout, const Chain& chain);
  void Close(uint64_t id);
  // A sequence over an opened share, which it closes when it ends. The model computes its rows by
  // all ranks (ranked_model.h).
  std::unique_ptr<KvSequence> Sequence(const Share& share);

  // A message under way. Its transfers must be waited for while it lives.
  struct Sent {
    std::deque<std::pair<RankHeader, std::string>> messages;
    std::vector<TransferPtr> transfers;
  };
  // To all other ranks, behind what was queued. REQUIRES: the caller has the turn.
  std::unique_ptr<Sent> Tell(RankVerb verb, std::string body);
  std::unique_ptr<Sent> TellOne(uint32_t rank, RankVerb verb, std::string body);
  // Waits for all; what is wrong with them ends the group.
  Status Await(std::vector<TransferPtr>& transfers);
  Status Await(Sent& sent) { return Await(sent.transfers); }

 private:
  class Twin;
  Status Pass(bool each, std::span<const TokenId> tokens, std::span<const uint64_t> ids,
              std::span<const SequenceRows> sequences, const std::function<Status()>& compute);
  void Queue(RankVerb verb, std::string body);
  void FlushQueued(Sent* sent);
  void Post(uint32_t rank, const std::pair<RankHeader, std::string>& message, Sent* sent);
  // If the layout is coded and the group has not been told how yet.
  std::unique_ptr<Sent> TellCalibration(const KvLayout& layout);
  Status AskFor(const KvLayout& layout, const Chain& chain, Share* share,
                std::vector<std::vector<size_t>>* missing);
  Status Fill(uint64_t id, uint32_t rank, const RankPages& pages, std::span<const size_t> missing);
  // What of it lies on the rank's own disk it loads; the rest stays in *missing.
  Status LoadThere(uint64_t id, uint32_t rank, const RankPages& pages,
                   std::vector<size_t>* missing);

  const RankContext context_;
  const RankChannels channels_;
  const std::vector<uint32_t> members_;
  const Placement placement_;
  std::atomic<uint64_t> next_id_{1};
  std::atomic<int> open_{0};
  std::atomic<uint64_t> passes_{0};
  mutable std::mutex mutex_;  // of what follows
  Status status_;
  std::vector<std::pair<RankVerb, std::string>> queued_;
  std::set<std::string> told_;  // calibrations, by digest
};

}  // namespace corpusd
