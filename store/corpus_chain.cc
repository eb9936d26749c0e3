#include "store/corpus_chain.h"

#include <algorithm>

#include "store/base/check.h"

namespace corpusd {

CorpusChain::CorpusChain(const CorpusRecord& record, uint32_t block_tokens)
    : block_tokens_(block_tokens) {
  const SegmentRule& rule = record.segments;
  if (rule.window_tokens == 0) {
    Add(0, record.tokens, 0, 0);
    return;
  }
  const uint64_t preamble = record.sources.empty() ? record.tokens : record.sources[0].first_token;
  Add(0, preamble, 0, 0);
  for (uint64_t i = 0; i < record.sources.size(); ++i) {
    const CorpusSource& source = record.sources[i];
    for (uint64_t done = 0; done < source.tokens; done += rule.window_tokens) {
      Add(source.first_token + done, std::min<uint64_t>(rule.window_tokens, source.tokens - done),
          done == 0 ? 0 : rule.overlap_tokens, i);
    }
  }
}

void CorpusChain::Add(uint64_t first_token, uint64_t tokens, uint32_t context_tokens,
                      uint64_t source) {
  const uint64_t blocks = (tokens + block_tokens_ - 1) / block_tokens_;
  if (blocks == 0) return;
  segments_.push_back({first_token, tokens, context_tokens, blocks_, blocks, source});
  blocks_ += blocks;
}

const CorpusSegment& CorpusChain::SegmentOfBlock(uint64_t index) const {
  CHECK(index < blocks_) << index << " of " << blocks_ << " blocks";
  const auto after = std::upper_bound(
      segments_.begin(), segments_.end(), index,
      [](uint64_t block, const CorpusSegment& segment) { return block < segment.first_block; });
  return *std::prev(after);
}

BlockSpan CorpusChain::block(uint64_t index) const {
  const CorpusSegment& segment = SegmentOfBlock(index);
  const uint64_t skipped = (index - segment.first_block) * block_tokens_;
  return {segment.first_token + skipped,
          static_cast<uint32_t>(std::min<uint64_t>(block_tokens_, segment.tokens - skipped))};
}

uint64_t CorpusChain::TokensOfBlocks(uint64_t blocks) const {
  if (blocks == 0) return 0;
  const BlockSpan last = block(blocks - 1);
  return last.first_token + last.tokens;
}

std::vector<Digest> CorpusChain::Digests(const Digest& root,
                                         std::span<const TokenId> tokens) const {
  std::vector<Digest> chain;
  chain.reserve(blocks_);
  Digest preamble = root;
  for (const CorpusSegment& segment : segments_) {
    Digest parent = preamble;
    if (segment.context_tokens > 0) {
      parent = ExtendChain(parent, tokens.subspan(segment.first_token - segment.context_tokens,
                                                  segment.context_tokens));
    }
    for (uint64_t done = 0; done < segment.tokens; done += block_tokens_) {
      parent = ExtendChain(
          parent, tokens.subspan(segment.first_token + done,
                                 std::min<uint64_t>(block_tokens_, segment.tokens - done)));
      chain.push_back(parent);
    }
    if (segment.first_block == 0) preamble = parent;
  }
  return chain;
}

Status CheckSegmented(const CorpusRecord& record, uint32_t block_tokens) {
  const SegmentRule& rule = record.segments;
  if (rule.window_tokens == 0) return OkStatus();
  const std::string what = "corpus '" + record.name + "' cannot be read: ";
  if (rule.window_tokens % block_tokens != 0 || rule.overlap_tokens % block_tokens != 0 ||
      rule.overlap_tokens >= rule.window_tokens) {
    return CorruptionError(what + "windows of " + std::to_string(rule.window_tokens) +
                           " tokens that overlap by " + std::to_string(rule.overlap_tokens));
  }
  uint64_t end = record.sources.empty() ? 0 : record.sources.front().first_token;
  if (end == 0 || end > record.tokens) {
    return CorruptionError(what + "it has no preamble or no source");
  }
  for (const CorpusSource& source : record.sources) {
    if (source.tokens > record.tokens - end) {
      return CorruptionError(what + "source '" + source.path + "' ends behind its last token");
    }
    if (source.first_token != end) {
      return CorruptionError(what + "source '" + source.path + "' begins at token " +
                             std::to_string(source.first_token) + ", the one before ends at " +
                             std::to_string(end));
    }
    end += source.tokens;
  }
  if (end == record.tokens) return OkStatus();
  return CorruptionError(what + "its sources end at token " + std::to_string(end) + " of " +
                         std::to_string(record.tokens));
}

}  // namespace corpusd
