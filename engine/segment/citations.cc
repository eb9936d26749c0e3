#include "engine/segment/citations.h"

#include <algorithm>
#include <string>

#include "engine/corpus_tokenizer.h"

namespace corpusd {
namespace {

// Tokens decoded at a time, when lines are counted.
constexpr uint64_t kDecodeTokens = 8192;

uint64_t NewLines(const Tokenizer& tokenizer, std::span<const TokenId> tokens) {
  uint64_t lines = 0;
  for (size_t first = 0; first < tokens.size(); first += kDecodeTokens) {
    const std::string text = tokenizer.Decode(
        tokens.subspan(first, std::min<size_t>(kDecodeTokens, tokens.size() - first)));
    lines += static_cast<uint64_t>(std::count(text.begin(), text.end(), '\n'));
  }
  return lines;
}

// Lines of the source itself: its header's do not count.
void SetLines(const CorpusSource& source, std::span<const TokenId> tokens,
              const Tokenizer& tokenizer, Citation* citation) {
  const std::string header = DocumentHeader(source.path);
  const auto header_lines = static_cast<uint64_t>(std::count(header.begin(), header.end(), '\n'));
  const auto before =
      tokens.subspan(source.first_token, citation->first_token - source.first_token);
  const auto cited = tokens.subspan(citation->first_token, citation->tokens);
  const uint64_t skipped = NewLines(tokenizer, before);
  uint64_t inside = NewLines(tokenizer, cited);
  // What ends with a line break does not reach into the next line.
  if (inside > 0 && tokenizer.Decode(cited.last(1)).ends_with('\n')) --inside;
  const auto line = [&](uint64_t n) { return n < header_lines ? 1 : n - header_lines + 1; };
  citation->first_line = line(skipped);
  citation->last_line = line(skipped + inside);
}

}  // namespace

std::vector<Citation> CiteBlocks(const CorpusRecord& record, const CorpusChain& chain,
                                 std::span<const TokenId> tokens, const Tokenizer& tokenizer,
                                 std::vector<BlockWeight> weights, size_t count) {
  std::sort(weights.begin(), weights.end(),
            [](const BlockWeight& a, const BlockWeight& b) { return a.block < b.block; });
  struct Stretch {
    uint64_t source, end_block;
    Citation citation;
  };
  std::vector<Stretch> stretches;
  double total = 0;
  for (const BlockWeight& weight : weights) {
    const CorpusSegment& segment = chain.SegmentOfBlock(weight.block);
    if (segment.first_block == 0) continue;
    total += weight.weight;
    const BlockSpan span = chain.block(weight.block);
    if (!stretches.empty() && stretches.back().source == segment.source &&
        stretches.back().end_block == weight.block) {
      stretches.back().end_block = weight.block + 1;
      stretches.back().citation.tokens += span.tokens;
      stretches.back().citation.weight += weight.weight;
      continue;
    }
    Citation citation;
    citation.first_token = span.first_token;
    citation.tokens = span.tokens;
    citation.weight = weight.weight;
    stretches.push_back({segment.source, weight.block + 1, citation});
  }
  std::stable_sort(stretches.begin(), stretches.end(), [](const Stretch& a, const Stretch& b) {
    return a.citation.weight > b.citation.weight;
  });
  if (stretches.size() > count) stretches.resize(count);
  std::vector<Citation> citations;
  for (Stretch& stretch : stretches) {
    const CorpusSource& source = record.sources[stretch.source];
    stretch.citation.source = source.path;
    if (total > 0) stretch.citation.weight /= total;
    SetLines(source, tokens, tokenizer, &stretch.citation);
    citations.push_back(std::move(stretch.citation));
  }
  return citations;
}

}  // namespace corpusd
