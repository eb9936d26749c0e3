// engine/segment/citations.h -- where an answer comes from: the weight of blocks, told as stretches
// of sources with their lines. Pure; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/engine.h"
#include "engine/tokenizer/tokenizer.h"
#include "store/corpus_chain.h"
#include "store/corpus_record.h"

namespace corpusd {

struct BlockWeight {
  uint64_t block = 0;
  double weight = 0;
};

// Neighbouring blocks of a source become one citation, whose weight is theirs together; at most
// `count`, the heaviest first, weights as shares of all. tokens: of the whole corpus. The preamble
// is not cited.
std::vector<Citation> CiteBlocks(const CorpusRecord& record, const CorpusChain& chain,
                                 std::span<const TokenId> tokens, const Tokenizer& tokenizer,
                                 std::vector<BlockWeight> weights, size_t count);

}  // namespace corpusd
