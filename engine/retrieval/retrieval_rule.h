// engine/retrieval/retrieval_rule.h -- how blocks are scored and chosen: every constant of it, with
// where it comes from. Plain data; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/retrieval/lexical_index.h"
#include "store/base/result.h"

namespace corpusd {

enum class RetrievalPolicy : uint8_t { kFused, kHeads, kLexical };
// "fused" or "", "heads", "lexical"; kInvalidArgument, naming the three, for any other text.
Result<RetrievalPolicy> ParseRetrievalPolicy(std::string_view name);
std::string_view RetrievalPolicyName(RetrievalPolicy policy);

struct RetrievalRule {
  Bm25Rule bm25;
  // Tokens of the same document before and behind a block whose words count as its own, too: what
  // is looked for may straddle the border of two blocks.
  uint32_t lexical_margin_tokens = 16;
  // Of the lexical score beside that of the heads, both in standard deviations.
  double lexical_weight = 1.0;
  // Blocks more than so far below the best one are not chosen, in standard deviations.
  double score_range = 3.0;
  uint32_t blocks_max = 16;
};

}  // namespace corpusd
