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

std::vector<Citation> CitePieces(const CorpusRecord& record, const CorpusChain& chain,
                                 std::span<const TokenId> tokens, const Tokenizer& tokenizer,
                                 std::vector<PieceWeight> weights, size_t count) {
  std::sort(weights.begin(), weights.end(), [](const PieceWeight& a, const PieceWeight& b) {
    return a.piece.block != b.piece.block ? a.piece.block < b.piece.block
                                          : a.piece.first < b.piece.first;
  });
  struct Stretch {
    uint64_t source;
    Citation citation;
  };
  std::vector<Stretch> stretches;
  double total = 0;
  for (const PieceWeight& weight : weights) {
    const CorpusSegment& segment = chain.SegmentOfBlock(weight.piece.block);
    if (segment.first_block == 0) continue;
    total += weight.weight;
    const uint64_t first = chain.block(weight.piece.block).first_token + weight.piece.first;
    const uint64_t count_of_piece = weight.piece.end - weight.piece.first;
    if (!stretches.empty() && stretches.back().source == segment.source) {
      Citation& last = stretches.back().citation;
      if (last.first_token + last.tokens == first) {
        last.tokens += count_of_piece;
        last.weight += weight.weight;
        continue;
      }
    }
    Citation citation;
    citation.first_token = first;
    citation.tokens = count_of_piece;
    citation.weight = weight.weight;
    stretches.push_back({segment.source, citation});
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
