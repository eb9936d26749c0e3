#include "engine/segment/segment_runner.h"

#include <algorithm>

namespace corpusd {

SegmentRunner::SegmentRunner(const ComputeContext& context, const SegmentedText& text,
                             const KvLayout& layout, std::span<const BlockRef> preamble)
    : context_(context), text_(text), layout_(layout.OfBlocks()), preamble_(preamble) {}

Result<ComputedSegment> SegmentRunner::Compute(const CorpusSegment& segment,
                                               ComputePriority priority,
                                               const std::stop_token& stop) {
  if (scratch_ == nullptr) {
    ASSIGN_OR_RETURN(scratch_,
                     ForwardScratch::Create(context_.backend, context_.model.config(), kRunTokens));
  }
  ComputedSegment computed;
  computed.kv = std::make_unique<KvSequence>(layout_);
  const bool is_preamble = segment.first_block == 0;
  for (const BlockRef& ref : preamble_) {
    if (!is_preamble) computed.kv->AddShared(ref.bytes().data(), ref.tokens());
  }
  const auto seen = text_.tokens.subspan(segment.first_token - segment.context_tokens,
                                         segment.context_tokens + segment.tokens);
  for (size_t first = 0; first < seen.size(); first += kRunTokens) {
    const auto run = seen.subspan(first, std::min<size_t>(kRunTokens, seen.size() - first));
    RETURN_IF_ERROR(ComputeRun(context_, run, *computed.kv, *scratch_, priority, stop));
  }
  ASSIGN_OR_RETURN(const auto pages, computed.kv->HostBlocks(context_.backend));
  const size_t skipped = segment.context_tokens / kBlockTokens;
  CHECK(pages.size() == skipped + segment.blocks) << pages.size() << " pages";
  for (size_t i = skipped; i < pages.size(); ++i) {
    const uint64_t block = segment.first_block + i - skipped;
    const BlockSpan span = text_.chain->block(block);
    const auto ids = text_.tokens.subspan(span.first_token, span.tokens);
    computed.writes.push_back(
        {text_.digests[block], {ids.begin(), ids.end()}, pages[i].bytes, layout_.blocks.layers});
  }
  return computed;
}

}  // namespace corpusd
