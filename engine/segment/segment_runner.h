// engine/segment/segment_runner.h -- computes the blocks of segments of a segmented corpus: behind
// the preamble's stored blocks, the overlap that a segment sees but does not keep, then its own
// tokens, run by run. Runs of several segments go through the model together. The bytes depend on
// the preamble, the overlap and the segment's tokens alone, never on what it was packed with, so an
// interrupted, resumed or repaired prefill gives those of an undisturbed one, and so does a corpus
// where the document stands elsewhere. One thread; takes turns at the compute gate.
#pragma once

#include <memory>
#include <span>
#include <stop_token>
#include <vector>

#include "engine/prefill/prefill_runner.h"
#include "store/corpus_chain.h"

namespace corpusd {

// Own tokens of a segment, and what it sees of its document before them. Over windows of 1,024 a
// small model answers 3 to 8 of 100 questions less, over 2,048 twice that (tests/eval/README.md).
inline constexpr SegmentRule kSegmentRule{512, 128};

// A corpus as segments: what all work on it needs. The spans must outlive it.
struct SegmentedText {
  std::span<const TokenId> tokens;  // of the whole corpus
  const CorpusChain* chain = nullptr;
  std::span<const Digest> digests;  // of all blocks

  std::span<const TokenId> preamble() const {
    return tokens.first(chain->segments().front().tokens);
  }
  std::span<const Digest> preamble_digests() const {
    return digests.first(chain->segments().front().blocks);
  }
};

// A segment's blocks, computed, in the backend's memory.
struct ComputedSegment {
  std::unique_ptr<KvSequence> kv;
  std::vector<BlockWrite> writes;    // all of the segment, in order; payloads are kv's, or
  std::shared_ptr<const void> held;  // this one's, where another rank computed it
};

// Payloads that lie in a device's memory are copied to *stage, which grows to the largest call, and
// are read there from then on; others stay where they are.
Status BringToHost(Backend& backend, std::span<BlockWrite> writes, std::unique_ptr<Buffer>* stage);

class SegmentRunner {
 public:
  // preamble: the leased pages of it, empty while it is itself computed; they must outlive this.
  SegmentRunner(const ComputeContext& context, const SegmentedText& text, const KvLayout& layout,
                std::span<const KvSequence::SharedPage> preamble);

  // A segment's blocks where they lie behind each other; their payloads.
  std::vector<BlockWrite> WritesOf(const CorpusSegment& segment, const std::byte* blocks) const;
  // In the order of the segments, all of whose pages are in memory together. kCancelled if stopped.
  Result<std::vector<ComputedSegment>> Compute(std::span<const CorpusSegment> segments,
                                               ComputePriority priority,
                                               const std::stop_token& stop);

 private:
  // A segment on its way.
  struct Work {
    std::unique_ptr<KvSequence> kv;
    std::span<const TokenId> left;  // still to be computed
  };
  Work Begin(const CorpusSegment& segment) const;
  Status ComputeNextRuns(std::span<Work> works, ComputePriority priority,
                         const std::stop_token& stop);
  BlockWrite WriteOf(uint64_t block, std::span<const std::byte> payload) const;
  ComputedSegment Finish(const CorpusSegment& segment, std::unique_ptr<KvSequence> kv) const;

  const ComputeContext& context_;
  const SegmentedText& text_;
  const KvLayout layout_;
  const std::span<const KvSequence::SharedPage> preamble_;
  std::unique_ptr<ForwardScratch> scratch_;
};

}  // namespace corpusd
