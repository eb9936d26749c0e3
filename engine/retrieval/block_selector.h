// engine/retrieval/block_selector.h -- from the scores of a corpus's blocks to those that a
// question attends to, and their order. Pure; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/retrieval/retrieval_rule.h"

namespace corpusd {

struct Candidates {
  std::span<const float> scores;     // [blocks], the larger the better
  std::span<const uint32_t> tokens;  // [blocks]
  uint64_t first_block = 0;          // blocks before it (the preamble) are attended anyway
};

// The `count` best blocks, best first; equal scores in order of the corpus.
std::vector<uint64_t> BestBlocks(const Candidates& candidates, size_t count);

// The blocks to attend, best first: from the best one on, as long as they are within the rule's
// range of it and of its number, and those whose tokens still fit the budget. At least the best
// one, if there is any.
std::vector<uint64_t> ChooseBlocks(const Candidates& candidates, uint32_t budget_tokens,
                                   const RetrievalRule& rule);

// In the order of their places before the question: the best last, nearest to it.
std::vector<uint64_t> AttendOrder(std::span<const uint64_t> best_first);

}  // namespace corpusd
