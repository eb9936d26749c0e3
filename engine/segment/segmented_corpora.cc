#include "engine/segment/segmented_corpora.h"

#include <algorithm>

namespace corpusd {
namespace {

// Blocks of one read when a whole corpus is read.
constexpr size_t kReadBlocks = 64;

}  // namespace

std::string ModeField(const SegmentRule& rule) {
  if (rule.window_tokens == 0) return "exact";
  return "segmented-" + std::to_string(rule.window_tokens) + "-" +
         std::to_string(rule.overlap_tokens);
}

SegmentedCorpora::SegmentedCorpora(const ComputeContext& context, BlockStore& store)
    : context_(context), store_(store) {}

Status SegmentedCorpora::Prefill(CorpusRecord* record, const KvLayout& layout,
                                 std::span<const TokenId> tokens,
                                 const std::function<void(const PrefillProgress&)>& progress,
                                 const std::stop_token& stop) {
  RETURN_IF_ERROR(CheckSegmented(*record, kBlockTokens));
  const CorpusChain chain(*record, kBlockTokens);
  const std::vector<Digest> digests = chain.Digests(record->root, tokens);
  const SegmentedText text{tokens, &chain, digests};
  return PrefillSegments({context_, store_, text, layout, stop}, record, progress, {});
}

Result<uint64_t> SegmentedCorpora::Repair(const CorpusRecord& record, const KvLayout& layout,
                                          std::span<const TokenId> tokens) {
  RETURN_IF_ERROR(CheckSegmented(record, kBlockTokens));
  const CorpusChain chain(record, kBlockTokens);
  const std::vector<Digest> digests = chain.Digests(record.root, tokens);
  const SegmentedText text{tokens, &chain, digests};
  const std::stop_token never;
  return RepairSegments({context_, store_, text, layout, never}, record);
}

Result<FetchStats> SegmentedCorpora::Warm(const CorpusRecord& record) {
  FetchStats all;
  const std::span<const Digest> chain(record.chain);
  for (size_t first = 0; first < chain.size(); first += kReadBlocks) {
    FetchStats stats;
    const size_t count = std::min(kReadBlocks, chain.size() - first);
    const auto refs = store_.Fetch(chain.subspan(first, count), &stats);
    if (refs.status().code() == StatusCode::kResourceExhausted) break;  // as far as they fit
    RETURN_IF_ERROR(refs.status());
    all.host_bytes += stats.host_bytes;
    all.disk_bytes += stats.disk_bytes;
    all.device_bytes += stats.device_bytes;
    all.seconds += stats.seconds;
    all.waited_seconds += stats.waited_seconds;
  }
  return all;
}

}  // namespace corpusd
