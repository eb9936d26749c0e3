// engine/segment/segment_publisher.h -- makes computed blocks of a segmented corpus durable, in
// order, and tells of them, on a thread of its own while the next ones are computed. One batch is
// on its way at most: memory is that of two. Called by one thread.
#pragma once

#include <future>
#include <vector>

#include "engine/segment/segment_prefill.h"
#include "engine/segment/segment_runner.h"

namespace corpusd {

// Blocks that are published together.
struct SegmentBatch {
  std::vector<ComputedSegment> segments;  // hold the payloads
  std::vector<BlockWrite> writes;
  double compute_seconds = 0;
};

class SegmentPublisher {
 public:
  // record, of the corpus, is only to be looked at when nothing is on its way.
  SegmentPublisher(Backend& backend, BlockStore& store, CorpusRecord* record,
                   const DurableBlocks& on_blocks)
      : backend_(backend), store_(store), record_(*record), on_blocks_(on_blocks) {}

  // Begins to publish a batch. REQUIRES: nothing is on its way.
  void Begin(SegmentBatch batch);
  // What was on its way is durable and in the record; or why it is not.
  Status Wait();
  // Of the blocks published so far.
  uint64_t written_bytes() const { return written_bytes_; }

 private:
  Status Publish();

  Backend& backend_;
  BlockStore& store_;
  CorpusRecord& record_;
  const DurableBlocks& on_blocks_;
  std::unique_ptr<Buffer> stage_;
  SegmentBatch batch_;
  uint64_t written_bytes_ = 0;
  std::future<Status> under_way_;  // destroyed first: it waits
};

}  // namespace corpusd
