#include "engine/retrieval/block_selector.h"

#include <algorithm>
#include <numeric>

namespace corpusd {

namespace {

// Adds what is left of a piece beside pieces that are taken, in order.
void AddRest(BlockPiece piece, std::span<const BlockPiece> taken, std::vector<BlockPiece>* rest) {
  for (const BlockPiece& other : taken) {
    if (other.block != piece.block || other.end <= piece.first || other.first >= piece.end) {
      continue;
    }
    if (piece.first < other.first) {
      AddRest({piece.block, piece.first, other.first}, taken, rest);
    }
    if (other.end < piece.end) AddRest({piece.block, other.end, piece.end}, taken, rest);
    return;
  }
  if (piece.first < piece.end) rest->push_back(piece);
}

}  // namespace

std::vector<uint64_t> BestBlocks(const Candidates& candidates, size_t count) {
  const uint64_t blocks = candidates.scores.size();
  const uint64_t first = std::min<uint64_t>(candidates.first_block, blocks);
  std::vector<uint64_t> order(blocks - first);
  std::iota(order.begin(), order.end(), first);
  const auto better = [&](uint64_t a, uint64_t b) {
    const float score_a = candidates.scores[a];
    const float score_b = candidates.scores[b];
    return score_a != score_b ? score_a > score_b : a < b;
  };
  const size_t kept = std::min(count, order.size());
  std::partial_sort(order.begin(), order.begin() + static_cast<ptrdiff_t>(kept), order.end(),
                    better);
  order.resize(kept);
  return order;
}

ChosenPieces PiecesAround(std::span<const BlockHit> best_first, std::span<const uint32_t> tokens,
                          const std::function<uint64_t(uint64_t block)>& document_of,
                          uint32_t budget_tokens, const RetrievalRule& rule) {
  std::vector<BlockPiece> taken;              // of all hits
  std::vector<std::vector<BlockPiece>> kept;  // of each
  uint64_t used = 0;
  for (const BlockHit& hit : best_first) {
    const uint64_t block = hit.block;
    const uint32_t count = tokens[block];
    const uint32_t end = hit.token + rule.tokens_behind;
    std::vector<BlockPiece> pieces;
    if (hit.token < rule.tokens_before && block > 0 &&
        document_of(block - 1) == document_of(block)) {
      const uint32_t missing = std::min(rule.tokens_before - hit.token, tokens[block - 1]);
      AddRest({block - 1, tokens[block - 1] - missing, tokens[block - 1]}, taken, &pieces);
    }
    const uint32_t first = hit.token - std::min(hit.token, rule.tokens_before);
    AddRest({block, first, std::min(end, count)}, taken, &pieces);
    if (end > count && block + 1 < tokens.size() && document_of(block + 1) == document_of(block)) {
      AddRest({block + 1, 0, std::min(end - count, tokens[block + 1])}, taken, &pieces);
    }
    uint64_t size = 0;
    for (const BlockPiece& piece : pieces) size += piece.end - piece.first;
    if (!kept.empty() && used + size > budget_tokens) continue;
    used += size;
    taken.insert(taken.end(), pieces.begin(), pieces.end());
    kept.push_back(std::move(pieces));
  }
  ChosenPieces chosen;
  for (auto pieces = kept.rbegin(); pieces != kept.rend(); ++pieces) {
    chosen.pieces.insert(chosen.pieces.end(), pieces->begin(), pieces->end());
  }
  if (!kept.empty()) chosen.of_best = kept.front().size();
  return chosen;
}

}  // namespace corpusd
