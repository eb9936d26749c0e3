// engine/retrieval/block_selector.h -- from the scores of a corpus's blocks to those that a
// question attends to, and their order. Pure; any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "engine/retrieval/retrieval_rule.h"

namespace corpusd {

struct Candidates {
  std::span<const float> scores;  // [blocks], the larger the better
  uint64_t first_block = 0;       // blocks before it (the preamble) are attended anyway
};

// The `count` best blocks, best first; equal scores in order of the corpus.
std::vector<uint64_t> BestBlocks(const Candidates& candidates, size_t count);

struct BlockHit {
  uint64_t block = 0;
  uint32_t token = 0;  // of the block
};
// Slots [first, end) of a block: what a page shows of it.
struct BlockPiece {
  uint64_t block = 0;
  uint32_t first = 0;
  uint32_t end = 0;
  bool operator==(const BlockPiece&) const = default;
};
struct ChosenPieces {
  std::vector<BlockPiece> pieces;  // in the order of their places before the question
  size_t of_best = 0;              // the last so many are those of the best hit
};
// The rule's tokens around each hit, which may reach into the blocks beside it in the same
// document; tokens of several hits belong to the best one. The best hit comes last, pieces of one
// hit in order of the corpus. Hits whose tokens no longer fit the budget are left out, the best one
// never. tokens: [blocks]; document_of: of a
// block, any number that its document's blocks alone have.
ChosenPieces PiecesAround(std::span<const BlockHit> best_first, std::span<const uint32_t> tokens,
                          const std::function<uint64_t(uint64_t block)>& document_of,
                          uint32_t budget_tokens, const RetrievalRule& rule);

}  // namespace corpusd
