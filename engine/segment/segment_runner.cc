#include "engine/segment/segment_runner.h"

#include <algorithm>

namespace corpusd {
namespace {

// Runs that go through the model together.
class Pack {
 public:
  // Whether a run of so many rows may join. Few rows have an arithmetic of their own, which hangs
  // on the rows of the whole call (backend.h): such a run is computed alone, so that its bytes are
  // the same whatever else there is to compute.
  bool Takes(size_t rows, uint32_t few_rows, uint32_t rows_max) const {
    if (tokens_.empty()) return true;
    const bool few = rows <= few_rows || sequences_.front().rows <= few_rows;
    return !few && tokens_.size() + rows <= rows_max;
  }
  void Add(KvSequence& kv, std::span<const TokenId> run) {
    sequences_.push_back({&kv, static_cast<uint32_t>(run.size())});
    tokens_.insert(tokens_.end(), run.begin(), run.end());
  }
  Status Compute(const ComputeContext& context, ForwardScratch& scratch, ComputePriority priority,
                 const std::stop_token& stop) {
    if (tokens_.empty()) return OkStatus();
    RETURN_IF_ERROR(ComputePacked(context, tokens_, sequences_, scratch, priority, stop));
    tokens_.clear();
    sequences_.clear();
    return OkStatus();
  }

 private:
  std::vector<TokenId> tokens_;
  std::vector<SequenceRows> sequences_;
};

}  // namespace

Status BringToHost(Backend& backend, std::span<BlockWrite> writes, std::unique_ptr<Buffer>* stage) {
  if (backend.host_addressable()) return OkStatus();
  uint64_t bytes = 0;
  for (const BlockWrite& write : writes) bytes += write.payload.size();
  if (*stage == nullptr || (*stage)->bytes() < bytes) {
    stage->reset();
    ASSIGN_OR_RETURN(*stage, backend.AllocateShared(bytes, "blocks to store"));
  }
  std::vector<CopyPiece> pieces;
  std::byte* to = (*stage)->data();
  for (BlockWrite& write : writes) {
    pieces.push_back({to, write.payload.data(), write.payload.size()});
    write.payload = {to, write.payload.size()};
    to += write.payload.size();
  }
  return backend.CopyBeside(pieces);
}

SegmentRunner::SegmentRunner(const ComputeContext& context, const SegmentedText& text,
                             const KvLayout& layout,
                             std::span<const KvSequence::SharedPage> preamble)
    : context_(context), text_(text), layout_(layout.OfBlocks()), preamble_(preamble) {}

SegmentRunner::Work SegmentRunner::Begin(const CorpusSegment& segment) const {
  Work work{std::make_unique<KvSequence>(layout_),
            text_.tokens.subspan(segment.first_token - segment.context_tokens,
                                 segment.context_tokens + segment.tokens)};
  const bool is_preamble = segment.first_block == 0;
  for (const KvSequence::SharedPage& page : preamble_) {
    if (!is_preamble) work.kv->AddShared(page);
  }
  return work;
}

// One run of every segment that has one left.
Status SegmentRunner::ComputeNextRuns(std::span<Work> works, ComputePriority priority,
                                      const std::stop_token& stop) {
  Pack pack;
  for (Work& work : works) {
    if (work.left.empty()) continue;
    const size_t rows = std::min<size_t>(kRunTokens, work.left.size());
    if (!pack.Takes(rows, context_.backend.few_rows(), scratch_->rows())) {
      RETURN_IF_ERROR(pack.Compute(context_, *scratch_, priority, stop));
    }
    pack.Add(*work.kv, work.left.first(rows));
    work.left = work.left.subspan(rows);
  }
  return pack.Compute(context_, *scratch_, priority, stop);
}

BlockWrite SegmentRunner::WriteOf(uint64_t block, std::span<const std::byte> payload) const {
  const BlockSpan span = text_.chain->block(block);
  const auto ids = text_.tokens.subspan(span.first_token, span.tokens);
  return {text_.digests[block], {ids.begin(), ids.end()}, payload, layout_.blocks.layers};
}

std::vector<BlockWrite> SegmentRunner::WritesOf(const CorpusSegment& segment,
                                                const std::byte* blocks) const {
  std::vector<BlockWrite> writes;
  for (uint64_t i = 0; i < segment.blocks; ++i) {
    const uint64_t bytes = layout_.blocks.BlockBytes();
    writes.push_back(WriteOf(segment.first_block + i, {blocks + i * bytes, bytes}));
  }
  return writes;
}

ComputedSegment SegmentRunner::Finish(const CorpusSegment& segment,
                                      std::unique_ptr<KvSequence> kv) const {
  ComputedSegment computed;
  computed.kv = std::move(kv);
  const auto pages = computed.kv->OwnBlocks();
  const size_t skipped = segment.context_tokens / kBlockTokens;
  CHECK(pages.size() == skipped + segment.blocks) << pages.size() << " pages";
  for (size_t i = skipped; i < pages.size(); ++i) {
    computed.writes.push_back(WriteOf(segment.first_block + i - skipped, pages[i].bytes));
  }
  return computed;
}

Result<std::vector<ComputedSegment>> SegmentRunner::Compute(std::span<const CorpusSegment> segments,
                                                            ComputePriority priority,
                                                            const std::stop_token& stop) {
  uint64_t rows = 0;
  for (const CorpusSegment& segment : segments) {
    rows += std::min<uint64_t>(kRunTokens, segment.context_tokens + segment.tokens);
  }
  rows = std::clamp<uint64_t>(rows, kRunTokens, context_.backend.batch_rows());
  if (scratch_ == nullptr || scratch_->rows() < rows) {
    scratch_.reset();
    ASSIGN_OR_RETURN(scratch_, ForwardScratch::Create(context_.backend, context_.model.config(),
                                                      static_cast<uint32_t>(rows)));
  }
  std::vector<Work> works;
  for (const CorpusSegment& segment : segments) works.push_back(Begin(segment));
  const auto unfinished = [](const Work& work) { return !work.left.empty(); };
  while (std::any_of(works.begin(), works.end(), unfinished)) {
    RETURN_IF_ERROR(ComputeNextRuns(works, priority, stop));
  }
  std::vector<ComputedSegment> computed;
  for (size_t i = 0; i < segments.size(); ++i) {
    computed.push_back(Finish(segments[i], std::move(works[i].kv)));
  }
  return computed;
}

}  // namespace corpusd
