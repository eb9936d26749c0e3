// engine/segment/segment_runner.h -- computes the blocks of one segment of a segmented corpus:
// behind the preamble's stored blocks, the overlap it sees but does not keep, then its own tokens,
// run by run. The bytes depend on the preamble, the overlap and the segment's tokens alone, so an
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

// A segment's blocks, computed. writes point into kv.
struct ComputedSegment {
  std::unique_ptr<KvSequence> kv;
  std::vector<BlockWrite> writes;  // all of the segment, in order
};

class SegmentRunner {
 public:
  // preamble: the leased blocks of it, empty while it is itself computed; they must outlive this.
  SegmentRunner(const ComputeContext& context, const SegmentedText& text, const KvLayout& layout,
                std::span<const BlockRef> preamble);

  // kCancelled if stopped.
  Result<ComputedSegment> Compute(const CorpusSegment& segment, ComputePriority priority,
                                  const std::stop_token& stop);

 private:
  const ComputeContext& context_;
  const SegmentedText& text_;
  const KvLayout layout_;
  const std::span<const BlockRef> preamble_;
  std::unique_ptr<ForwardScratch> scratch_;
};

}  // namespace corpusd
