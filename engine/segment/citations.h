// engine/segment/citations.h -- where an answer comes from: the weight of pieces of blocks, told as
// stretches of sources with their lines. Pure; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/engine.h"
#include "engine/retrieval/block_selector.h"
#include "engine/tokenizer/tokenizer.h"
#include "store/corpus_chain.h"
#include "store/corpus_record.h"

namespace corpusd {

struct PieceWeight {
  BlockPiece piece;
  double weight = 0;
};

// Pieces that touch in a source become one citation, whose weight is theirs together; at most
// `count`, the heaviest first, weights as shares of all. tokens: of the whole corpus. The preamble
// is not cited.
std::vector<Citation> CitePieces(const CorpusRecord& record, const CorpusChain& chain,
                                 std::span<const TokenId> tokens, const Tokenizer& tokenizer,
                                 std::vector<PieceWeight> weights, size_t count);

}  // namespace corpusd
