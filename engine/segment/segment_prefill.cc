#include "engine/segment/segment_prefill.h"

#include <algorithm>
#include <chrono>
#include <numeric>

#include "engine/ranks/leader_prefill.h"
#include "engine/segment/segment_publisher.h"

namespace corpusd {
namespace {

// Blocks of one publish: 25 MB of a small model at 4 bits, and a second of its prefill on a CPU;
// more where more rows are computed together.
constexpr size_t kPublishBlocks = 32;
size_t PublishBlocks(const Backend& backend) {
  return std::max<size_t>(kPublishBlocks, backend.batch_rows() / kBlockTokens);
}
// References of one commit.
constexpr size_t kAdoptBlocks = 4096;

Status StoppedAfter(const CorpusRecord& record) {
  return CancelledError("the prefill of corpus '" + record.name + "' was stopped after " +
                        std::to_string(record.durable_tokens) + " tokens, which stay");
}

// The state of one prefill between its steps.
class SegmentPrefill {
 public:
  SegmentPrefill(const SegmentPrefillTask& task, CorpusRecord* record,
                 const std::function<void(const PrefillProgress&)>& progress,
                 const DurableBlocks& on_blocks)
      : task_(task),
        record_(*record),
        progress_(progress),
        on_blocks_(on_blocks),
        publisher_(task.context.backend, task.store, record, on_blocks) {}

  Status Run() {
    state_.total_tokens = task_.text.tokens.size();
    Tell();
    RETURN_IF_ERROR(LookUp());
    next_ = record_blocks_ = record_.chain.size();
    while (next_ < task_.text.chain->blocks()) {
      if (task_.stop.stop_requested()) {
        RETURN_IF_ERROR(AwaitPublish());
        return StoppedAfter(record_);
      }
      RETURN_IF_ERROR(Step());
    }
    return AwaitPublish();
  }

 private:
  void Tell() {
    state_.done_tokens = record_.durable_tokens;
    state_.written_bytes = publisher_.written_bytes();
    progress_(state_);
  }

  Status LookUp() {
    ASSIGN_OR_RETURN(presence_, task_.store.StoredBlocks(*task_.text.chain, task_.text.digests,
                                                         task_.text.tokens));
    return OkStatus();
  }

  Status AwaitPublish() {
    const size_t blocks = record_blocks_;
    RETURN_IF_ERROR(publisher_.Wait());
    record_blocks_ = record_.chain.size();
    if (record_blocks_ != blocks) Tell();
    return OkStatus();
  }

  // Blocks that the store has, from `first` on.
  size_t StoredFrom(size_t first) const {
    const size_t most = std::min(presence_.size() - first, kAdoptBlocks);
    size_t count = 0;
    while (count < most && presence_[first + count] == BlockPresence::kStored) ++count;
    return count;
  }

  // Adopts or computes what comes next.
  Status Step() {
    const CorpusSegment& segment = task_.text.chain->SegmentOfBlock(next_);
    const size_t stored = StoredFrom(next_);
    const bool whole = stored >= segment.first_block + segment.blocks - next_;
    return whole ? Adopt(stored) : Compute();
  }

  Status Adopt(size_t count) {
    RETURN_IF_ERROR(AwaitPublish());
    const uint64_t durable_tokens = record_.durable_tokens;
    auto adopted = task_.store.AdoptBlocks(record_, task_.text.digests.subspan(next_, count));
    const StatusCode code = adopted.status().code();
    if (code == StatusCode::kNotFound) return LookUp();  // gone since
    if (code == StatusCode::kAborted) {                  // pinned or touched meanwhile
      ASSIGN_OR_RETURN(record_, task_.store.GetCorpus(record_.name));
      return OkStatus();
    }
    ASSIGN_OR_RETURN(record_, std::move(adopted));
    state_.reused_tokens += record_.durable_tokens - durable_tokens;
    if (on_blocks_) {
      const std::vector<std::span<const std::byte>> unread(count);
      RETURN_IF_ERROR(on_blocks_(next_, unread));
    }
    next_ += count;
    record_blocks_ = record_.chain.size();
    Tell();
    return OkStatus();
  }

  Status HoldPreamble() {
    if (!preamble_.pages.empty() || next_ == 0) return OkStatus();
    RETURN_IF_ERROR(AwaitPublish());
    ASSIGN_OR_RETURN(preamble_, LeasePreamble(task_, ComputePriority::kPrefill));
    return OkStatus();
  }

  // Those that come next and are not stored, as many as are published at once.
  std::span<const CorpusSegment> NextSegments() const {
    const auto all = task_.text.chain->segments();
    const CorpusSegment* const first = &task_.text.chain->SegmentOfBlock(next_);
    const CorpusSegment* last = first + 1;
    if (first->first_block == 0) return {first, last};  // the others need it in the store
    const CorpusSegment* const end = all.data() + all.size();
    const size_t ranks = documents_ == nullptr ? 1 : documents_->ranks();
    const size_t blocks_max = PublishBlocks(task_.context.backend) * ranks;
    while (last != end && last->first_block + last->blocks - next_ <= blocks_max &&
           StoredFrom(last->first_block) < last->blocks) {
      ++last;
    }
    return {first, last};
  }

  // A batch of segments from the next block on, while the one before is published.
  Status Compute() {
    const auto start = std::chrono::steady_clock::now();
    RETURN_IF_ERROR(HoldPreamble());
    if (runner_ == nullptr || preamble_held_ != preamble_.pages.size()) {
      runner_ =
          std::make_unique<SegmentRunner>(task_.context, task_.text, task_.layout, preamble_.pages);
      preamble_held_ = preamble_.pages.size();
    }
    if (task_.ranks != nullptr && documents_ == nullptr && preamble_held_ > 0) {
      ASSIGN_OR_RETURN(documents_,
                       LeaderDocuments::Begin(task_.ranks, task_.layout, record_, task_.text));
    }
    SegmentBatch batch;
    auto computed = documents_ == nullptr
                        ? runner_->Compute(NextSegments(), ComputePriority::kPrefill, task_.stop)
                        : documents_->Compute(NextSegments(), *runner_, task_.stop);
    ASSIGN_OR_RETURN(batch.segments, std::move(computed));
    for (const ComputedSegment& segment : batch.segments) {
      batch.writes.insert(batch.writes.end(), segment.writes.begin(), segment.writes.end());
    }
    // A chain that was cut inside a segment has its first blocks already.
    const uint64_t begun = next_ - task_.text.chain->SegmentOfBlock(next_).first_block;
    batch.writes.erase(batch.writes.begin(), batch.writes.begin() + static_cast<ptrdiff_t>(begun));
    RETURN_IF_ERROR(AwaitPublish());
    next_ += batch.writes.size();
    batch.compute_seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    publisher_.Begin(std::move(batch));
    return OkStatus();
  }

  const SegmentPrefillTask& task_;
  CorpusRecord& record_;
  const std::function<void(const PrefillProgress&)>& progress_;
  const DurableBlocks& on_blocks_;
  std::vector<BlockPresence> presence_;
  SegmentLease preamble_;
  std::unique_ptr<SegmentRunner> runner_;
  std::unique_ptr<LeaderDocuments> documents_;  // null: no other rank computes
  size_t preamble_held_ = 0;                    // blocks of it that the runner knows
  size_t next_ = 0;                             // block that is not computed or adopted yet
  size_t record_blocks_ = 0;                    // durable, as far as was told
  PrefillProgress state_;
  SegmentPublisher publisher_;
};

// Computes a segment and writes back those of its blocks that `broken` names.
Status MendSegment(const SegmentPrefillTask& task, SegmentRunner& runner,
                   const CorpusSegment& segment, std::span<const uint64_t> broken,
                   ComputePriority priority, uint64_t* recomputed_tokens) {
  ASSIGN_OR_RETURN(auto segments, runner.Compute({&segment, 1}, priority, task.stop));
  ComputedSegment& computed = segments.front();
  std::unique_ptr<Buffer> stage;
  RETURN_IF_ERROR(BringToHost(task.context.backend, computed.writes, &stage));
  *recomputed_tokens += segment.tokens;
  for (const uint64_t block : broken) {
    RETURN_IF_ERROR(task.store.Repair(computed.writes[block - segment.first_block]));
  }
  return OkStatus();
}

// Computes the segments of the broken blocks (in order) again.
Status Mend(const SegmentPrefillTask& task, std::span<const KvSequence::SharedPage> preamble,
            std::span<const uint64_t> broken, ComputePriority priority,
            uint64_t* recomputed_tokens) {
  SegmentRunner runner(task.context, task.text, task.layout, preamble);
  for (size_t i = 0; i < broken.size();) {
    const CorpusSegment& segment = task.text.chain->SegmentOfBlock(broken[i]);
    size_t end = i;
    while (end < broken.size() && broken[end] < segment.first_block + segment.blocks) ++end;
    RETURN_IF_ERROR(MendSegment(task, runner, segment, broken.subspan(i, end - i), priority,
                                recomputed_tokens));
    i = end;
  }
  return OkStatus();
}

bool IsPlaced(const SegmentLease& lease, size_t block) {
  return block < lease.placed.size() && lease.placed[block].held != nullptr;
}

void FindOnDevice(BlockStore& store, std::span<const Digest> digests, SegmentLease* lease) {
  lease->placed = store.OnDevice(digests);
  for (const DeviceRef& ref : lease->placed) lease->stats.device_bytes += ref.bytes;
}

// Leases in host memory what is not on the device; damaged: those it could not.
Status FetchRest(BlockStore& store, std::span<const Digest> digests, SegmentLease* lease,
                 std::vector<size_t>* damaged) {
  std::vector<size_t> rest;
  std::vector<Digest> wanted;
  for (size_t i = 0; i < digests.size(); ++i) {
    if (IsPlaced(*lease, i)) continue;
    rest.push_back(i);
    wanted.push_back(digests[i]);
  }
  lease->refs.assign(digests.size(), {});
  if (wanted.empty()) return OkStatus();
  FetchStats stats;
  ASSIGN_OR_RETURN(auto refs, store.Fetch(wanted, &stats));
  AddFetch(stats, &lease->stats);
  for (size_t i = 0; i < rest.size(); ++i) lease->refs[rest[i]] = std::move(refs[i]);
  for (const size_t i : stats.damaged) damaged->push_back(rest[i]);
  for (const size_t i : stats.missing) damaged->push_back(rest[i]);
  return OkStatus();
}

// Puts what is not on the device there: in the store's tier if it takes it, else for this lease
// alone.
Status CopyToDevice(const SegmentPrefillTask& task, std::span<const Digest> digests,
                    SegmentLease* lease) {
  std::vector<size_t> rest;
  std::vector<Digest> wanted;
  std::vector<BlockRef> refs;
  for (size_t i = 0; i < digests.size(); ++i) {
    if (IsPlaced(*lease, i)) continue;
    rest.push_back(i);
    wanted.push_back(digests[i]);
    refs.push_back(lease->refs[i]);
  }
  if (rest.empty()) return OkStatus();
  // A tier that is full or failing costs a copy, not the answer.
  (void)task.store.PromoteToDevice(wanted, refs, task.stop);
  std::vector<DeviceRef> placed = task.store.OnDevice(wanted);
  std::vector<CopyPiece> pieces;
  for (size_t i = 0; i < rest.size(); ++i) {
    if (placed[i].held != nullptr) {
      lease->placed[rest[i]] = std::move(placed[i]);
      continue;
    }
    const auto bytes = refs[i].bytes();
    ASSIGN_OR_RETURN(auto copy, task.context.backend.Allocate(bytes.size(), "a block"));
    pieces.push_back({copy->data(), bytes.data(), bytes.size()});
    lease->pages[rest[i]].bytes = copy->data();
    lease->copies.push_back(std::move(copy));
  }
  return task.context.backend.CopyBeside(pieces);
}

// The lease with its pages.
Result<SegmentLease> Placed(const SegmentPrefillTask& task, std::span<const Digest> digests,
                            SegmentLease lease) {
  lease.pages.resize(digests.size());
  for (size_t i = 0; i < digests.size(); ++i) {
    if (lease.refs[i].valid()) {
      lease.pages[i] = {lease.refs[i].bytes().data(), lease.refs[i].tokens()};
    }
  }
  if (task.context.backend.host_addressable()) return lease;
  RETURN_IF_ERROR(CopyToDevice(task, digests, &lease));
  for (size_t i = 0; i < digests.size(); ++i) {
    const DeviceRef& ref = lease.placed[i];
    if (ref.held == nullptr) continue;
    lease.pages[i] = {reinterpret_cast<const std::byte*>(ref.address), ref.tokens};
  }
  return lease;
}

}  // namespace

Status PrefillSegments(const SegmentPrefillTask& task, CorpusRecord* record,
                       const std::function<void(const PrefillProgress&)>& progress,
                       const DurableBlocks& on_blocks) {
  return SegmentPrefill(task, record, progress, on_blocks).Run();
}

Result<SegmentLease> LeasePreamble(const SegmentPrefillTask& task, ComputePriority priority) {
  std::vector<uint64_t> blocks(task.text.preamble_digests().size());
  std::iota(blocks.begin(), blocks.end(), uint64_t{0});
  return LeaseBlocks(task, {}, blocks, priority);
}

// Mends once what is broken.
Result<SegmentLease> LeaseBlocks(const SegmentPrefillTask& task,
                                 std::span<const KvSequence::SharedPage> preamble,
                                 std::span<const uint64_t> blocks, ComputePriority priority) {
  SegmentLease lease;
  std::vector<Digest> digests;
  for (const uint64_t block : blocks) digests.push_back(task.text.digests[block]);
  if (!task.context.backend.host_addressable()) FindOnDevice(task.store, digests, &lease);
  for (int pass = 0; pass < 2; ++pass) {
    std::vector<size_t> damaged;
    RETURN_IF_ERROR(FetchRest(task.store, digests, &lease, &damaged));
    if (damaged.empty()) return Placed(task, digests, std::move(lease));
    std::vector<uint64_t> broken;
    for (const size_t i : damaged) broken.push_back(blocks[i]);
    std::sort(broken.begin(), broken.end());
    RETURN_IF_ERROR(Mend(task, preamble, broken, priority, &lease.recomputed_tokens));
  }
  return CorruptionError("blocks stay damaged after being written again: is the disk failing?");
}

Result<uint64_t> RepairSegments(const SegmentPrefillTask& task, const CorpusRecord& record) {
  ASSIGN_OR_RETURN(const auto presence, task.store.Presence(record.chain));
  std::vector<uint64_t> broken;
  for (uint64_t i = 0; i < presence.size(); ++i) {
    if (presence[i] != BlockPresence::kStored) broken.push_back(i);
  }
  if (broken.empty()) return uint64_t{0};
  ASSIGN_OR_RETURN(const SegmentLease preamble,
                   LeasePreamble(task, ComputePriority::kPrefill));  // mends it
  const auto rest = std::upper_bound(broken.begin(), broken.end(), preamble.pages.size() - 1);
  uint64_t recomputed_tokens = 0;
  RETURN_IF_ERROR(Mend(task, preamble.pages, {rest, broken.end()}, ComputePriority::kPrefill,
                       &recomputed_tokens));
  return broken.size();
}

}  // namespace corpusd
